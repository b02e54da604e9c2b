#include "compress/mixed_recipe.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "base/error.h"

namespace tandem {
namespace {

struct Options {
  std::vector<IntegerGrid> grids;
  SensitivityMeasure measure = SensitivityMeasure::kl;
  BudgetUnit unit = BudgetUnit::bytes;
  double budget = 0.0;
};

std::vector<IntegerGrid> read_grids(OptionReader& reader, const ModelConfig& config,
                                    ScaleType scale_type) {
  IntegerGrid grid;
  grid.group = reader.integer("group", 64, 0, 1 << 20);
  for (const int64_t width : {config.width, config.num_heads * config.head_dim, config.ffn_width}) {
    if (grid.group == 0 || width % grid.group == 0) continue;
    reader.refuse("group",
                  fmt::format("{}, which does not divide a width of {}", grid.group, width));
  }
  grid.symmetric = reader.boolean("symmetric", false);
  grid.scale_type = scale_type;
  const std::string text = reader.text("bits", "3 4 8");
  std::istringstream words(text);
  std::vector<IntegerGrid> grids;
  for (std::string word; words >> word;) {
    if (word != "2" && word != "3" && word != "4" && word != "8") {
      reader.refuse("bits", quote(text) + ", expected widths of 2, 3, 4, 8 such as \"3 4 8\"");
    }
    grid.bits = word[0] - '0';
    grids.push_back(grid);
  }
  if (grids.size() < 2) reader.refuse("bits", quote(text) + ", expected at least two widths");
  return grids;
}

Options read(const StepRecipe& recipe, const ModelConfig& config) {
  OptionReader reader("mixed", *recipe.mixed, "every matrix", config.width);
  Options options;
  options.grids = read_grids(reader, config, recipe.steps.back().scale_type);
  options.measure = reader.word("measure", "kl", {"kl", "output"}) == "kl"
                        ? SensitivityMeasure::kl
                        : SensitivityMeasure::output;
  const double bits = reader.number("bits-per-weight", 0, 0, 32);
  const double megabytes = reader.number("megabytes", 0, 0, 1e9);
  const double microseconds = reader.number("microseconds", 0, 0, 1e9);
  const double millijoules = reader.number("millijoules", 0, 0, 1e9);
  reader.finish();
  if ((bits > 0) + (megabytes > 0) + (microseconds > 0) + (millijoules > 0) != 1) {
    fail(ErrorKind::usage,
         "{}: mixed: expected one budget: bits-per-weight, megabytes, microseconds or millijoules",
         recipe.mixed->where);
  }
  options.unit = microseconds > 0  ? BudgetUnit::nanoseconds
                 : millijoules > 0 ? BudgetUnit::microjoules
                                   : BudgetUnit::bytes;
  options.budget = microseconds > 0  ? microseconds * 1000
                   : millijoules > 0 ? millijoules * 1000
                   : megabytes > 0   ? megabytes * 1e6
                                    : bits / 8 * static_cast<double>(num_layer_weights(config));
  return options;
}

// "layer 0: 4 4 3 8" for the manifest, a line each.
std::string allocation_text(const std::vector<IntegerGrid>& grids, const Allocation& chosen) {
  std::string text = "\n# chosen bits of qkv, o, gate_up, down\n";
  for (size_t s = 0; s < chosen.forms.size(); ++s) {
    if (s % kNumSets == 0) text += fmt::format("{}# layer {}:", s == 0 ? "" : "\n", s / kNumSets);
    text += fmt::format(" {}", grids[static_cast<size_t>(chosen.forms[s])].bits);
  }
  return text + "\n";
}

}  // namespace

MixedChoice allocate_bits(StepRecipe* recipe, const Checkpoint& source, const CalibrationRows& rows,
                          std::string_view isa, ThreadPool& pool, const JoulesOf& joules_of,
                          const std::function<void(double)>& progress) {
  CHECK(recipe->mixed.has_value(), "recipe {} has no [mixed]", recipe->name);
  constexpr std::array kRounding = {"rtn", "hqq", "awq", "gptq"};
  if (std::ranges::find(kRounding, recipe->steps.back().method) == kRounding.end()) {
    fail(ErrorKind::usage, "{}: mixed: the last step is {}, expected rtn, hqq, awq or gptq",
         recipe->mixed->where, recipe->steps.back().method);
  }
  const Options options = read(*recipe, source.config);
  const auto sizes = set_sizes(source.config, options.grids, options.unit, isa, pool, joules_of);
  const auto costs =
      measure_sensitivity(source, rows, options.grids, options.measure, pool, progress);
  MixedChoice choice{options.unit, options.measure, mixed_curve(sizes, costs), 0};
  const Allocation& best = within_budget(choice.curve, options.budget, unit_name(options.unit));
  choice.chosen = static_cast<size_t>(&best - choice.curve.data());
  recipe->steps.back() = with_allocation(recipe->steps.back(), options.grids, best);
  recipe->text += allocation_text(options.grids, best);
  return choice;
}

}  // namespace tandem
