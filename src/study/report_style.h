// The style sheet of the report: one hue a variant (s0, the bf16 reference, is grey), chosen to
// stay apart in the common colour-vision deficiencies; light, dark and print differ in variables.
#pragma once

namespace tandem {

inline constexpr const char* kReportStyle = R"css(
:root{color-scheme:light dark;
--paper:#fcfbf8;--card:#fff;--ink:#1b1d21;--soft:#4d535c;--mute:#6b717a;--line:#dcd9d1;
--grid:#e9e6df;
--warn:#a63d00;--note:#f4efe2;
--s0:#6c727b;--s1:#2366b1;--s2:#cf5f0b;--s3:#0b8a6a;--s4:#8547ab;--s5:#97700a;--s6:#c03a67;
--s7:#237f95;
--serif:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Georgia,"DejaVu Serif",serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{
--paper:#131519;--card:#1b1e23;--ink:#eceae5;--soft:#b9bcc2;--mute:#9298a1;--line:#32363d;
--grid:#282c32;
--warn:#ff9d5c;--note:#25231c;
--s0:#a0a6af;--s1:#66a5f0;--s2:#f08d43;--s3:#3abf99;--s4:#c091e4;--s5:#d6ad3e;--s6:#f0809f;
--s7:#5cc0d6}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans)}
main,footer{max-width:1040px;margin:0 auto;padding:0 20px}
h1,h2,h3{font-family:var(--serif);line-height:1.18;font-weight:700;margin:0;text-wrap:balance}
p{margin:.5em 0}
.over{font-size:12px;letter-spacing:.07em;text-transform:uppercase;color:var(--mute);margin:0 0 8px}
header{padding:34px 0 0;border-top:5px solid var(--ink)}
h1{font-size:clamp(28px,5vw,46px);letter-spacing:-.012em}
.facts{color:var(--soft);font-size:14px;margin:12px 0 0}
.verdict{margin:26px 0 0;max-width:46em}
.verdict h2{font-size:clamp(21px,3vw,27px)}
.verdict .said{white-space:pre-line;font-size:17px;margin:.6em 0}
.verdict ul{margin:.5em 0;padding-left:1.15em}
.verdict li{margin:.25em 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:0 26px;
margin:24px 0 0;
padding:0;list-style:none}
.tiles li{border-top:2px solid var(--ink);padding:10px 0 14px}
.tiles .k{font-size:13px;color:var(--soft)}
.tiles .v{font-family:var(--serif);font-size:32px;line-height:1.15;
font-variant-numeric:tabular-nums lining-nums}
.tiles .v small{font:14px var(--sans);color:var(--soft);margin-left:.25em}
.tiles .d{font-size:13px;color:var(--soft)}
.tiles svg{display:block;width:100%;height:15px;margin:6px 0 5px}
.note{background:var(--note);border-left:3px solid var(--s2);padding:10px 14px;margin:22px 0 0;
font-size:15px;
max-width:50em}
nav{margin:26px 0 0;padding:10px 0;border-top:1px solid var(--line);
border-bottom:1px solid var(--line);
font-size:14px;display:flex;flex-wrap:wrap;gap:4px 18px}
nav a,a{color:var(--s1);text-decoration:none}
a:hover{text-decoration:underline}
section,figure{margin:52px 0 0;padding:18px 0 0;border-top:1px solid var(--line)}
section>h2,figure>h2{font-size:clamp(20px,2.6vw,25px)}
.sub{color:var(--soft);max-width:48em;margin:.45em 0 .8em}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft);margin:0 0 8px}
.key svg{width:26px;height:12px;vertical-align:-1px;margin-right:6px}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr));
gap:26px 48px}
.panels.three{grid-template-columns:repeat(auto-fit,minmax(min(290px,100%),1fr));gap:26px 36px}
.plot{display:block;width:100%;max-width:480px;height:auto;font-family:var(--sans)}
figcaption{font-size:13px;color:var(--mute);margin-top:12px;max-width:60em}
figcaption code,.cmd{font:12px/1.5 var(--mono);overflow-wrap:anywhere;color:var(--soft)}
details{font-size:13px;margin-top:8px}
summary{cursor:pointer;color:var(--s1)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}
.s5{--c:var(--s5)}
.s6{--c:var(--s6)}.s7{--c:var(--s7)}
svg text{fill:var(--ink)}
.plot text{font-size:11px}
.plot .pt{font-size:13px;font-weight:600}
.plot .lb{font-variant-numeric:tabular-nums}
.plot .va{paint-order:stroke;stroke:var(--paper);stroke-width:5px;stroke-linejoin:round}
.plot .ti,.plot .at{font-size:10px;fill:var(--mute)}
.plot .at{font-size:11px}
.plot .gn{font-size:12px;font-weight:650;fill:var(--c)}
.plot .mu,.plot .co{fill:var(--mute);font-style:italic}
.plot .no,.plot .no tspan,tspan.no{fill:var(--warn)}
.plot .pl{fill:var(--c);font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:3px;
stroke-linejoin:round}
.e{text-anchor:end}.m{text-anchor:middle}
.ax{stroke:var(--ink);stroke-width:1}.gr{stroke:var(--grid);stroke-width:1}
.wh{stroke:var(--ink);stroke-width:1.1;fill:none}.pw .wh{opacity:.4}
.tk{stroke:var(--ink);stroke-width:2}
.li{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:4 3}
.ld{stroke:var(--mute);stroke-width:.7}
.fr{fill:none;stroke:var(--ink);stroke-width:1.3;stroke-dasharray:2 3;opacity:.75}
.rg{fill:none;stroke:var(--ink);stroke-width:1.6}
.b{fill:var(--c)}
.h{fill:url(#h0);stroke:var(--c);stroke-width:1}
.s1.h{fill:url(#h1)}.s2.h{fill:url(#h2)}.s3.h{fill:url(#h3)}.s4.h{fill:url(#h4)}.s5.h{fill:url(#h5)}
.s6.h{fill:url(#h6)}.s7.h{fill:url(#h7)}
.hb{fill:var(--c);opacity:.22}.hl{stroke:var(--c);stroke-width:2.4}
.g1{opacity:.5}.g2{opacity:.2}
.fm{fill:var(--c);stroke:var(--paper);stroke-width:1}
.om{fill:var(--paper);stroke:var(--c);stroke-width:2.2}
.fd{opacity:.4}text.fd{opacity:.72}
.scroll{overflow-x:auto;margin:10px 0 0;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums lining-nums}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);text-align:right;
vertical-align:top;
white-space:nowrap}
thead th{color:var(--mute);font-weight:500;border-bottom:1.5px solid var(--ink);
vertical-align:bottom}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:600;
padding-right:16px}
tbody th i{font-style:normal;font-weight:400;color:var(--soft)}
td.l,th.l{text-align:left}
td small{color:var(--mute)}
.best{font-weight:700}
.bad{color:var(--warn)}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;background:var(--c);
margin-right:7px}
.pick th:first-child{box-shadow:inset 3px 0 0 var(--ink);padding-left:9px}
.mani th,.mani td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.mani th{width:11em;color:var(--soft);font-weight:500}
.mani td{font:12px/1.5 var(--mono)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(290px,100%),1fr));gap:14px;
margin:10px 0 0}
.card{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--c);
padding:10px 14px 12px}
.card p{white-space:pre-wrap;overflow-wrap:anywhere;font-size:14px;margin:.4em 0 0;max-height:22em;
overflow:auto}
.card .who{font-size:13px;font-weight:600;display:flex;flex-wrap:wrap;gap:2px 12px}
.same{color:var(--mute)}
.ask{font-family:var(--serif);font-size:17px;margin:22px 0 0;white-space:pre-wrap;
overflow-wrap:anywhere}
.method p{max-width:48em}
footer{color:var(--mute);font-size:13px;padding-top:26px;padding-bottom:46px}
@media (max-width:480px){main,footer{padding:0 16px}.tiles{grid-template-columns:1fr 1fr;gap:0 18px}
.tiles .v{font-size:26px}.verdict .said{font-size:16px}section,figure{margin-top:38px}}
@page{size:A4;margin:14mm}
@media print{:root{color-scheme:light;
--paper:#fff;--card:#fff;--ink:#111;--soft:#444;--mute:#666;--line:#ccc;--grid:#e6e6e6;
--warn:#a63d00;--note:#f5f2ea;
--s0:#6c727b;--s1:#2366b1;--s2:#cf5f0b;--s3:#0b8a6a;--s4:#8547ab;--s5:#97700a;--s6:#c03a67;
--s7:#237f95}
body{font-size:10pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main,footer{max-width:none;padding:0}nav,details{display:none}
figure,section{margin-top:9mm}.plot,.card,.tiles li,.note{break-inside:avoid}
h2,.over,.sub,.key,.ask{break-after:avoid}tr{break-inside:avoid}
.panels{grid-template-columns:1fr 1fr;gap:4mm 8mm}.panels.three{grid-template-columns:1fr 1fr}
.sub{break-inside:avoid}
.tiles{grid-template-columns:repeat(3,1fr)}
.card p{max-height:none}.scroll{overflow:visible}.full table{font-size:6.4pt}.full th,
.full td{padding-right:4pt}
th:first-child{position:static}}
)css";

}  // namespace tandem
