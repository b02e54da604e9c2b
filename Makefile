# Three commands, each enough from a clean clone on a bare Debian 12 (git, make, and root or sudo):
#   make study [PROFILE=smoke|quick|full] [MODEL=FILE|FOLDER] [TEXT=FILE] [DEVICE=cuda]
#   make study SHAPE=data/models/NAME.json [ENCODINGS=bf16,int8,...] ...: random weights of a shape
#   make methods [MODEL=FILE|FOLDER] [TEXT=FILE] [HELLASWAG=FILE]
#   make test
# tools/setup.sh installs what is missing; with everything in place nothing touches the network.
PROFILE ?= quick
SECONDS ?= 60
BUILD := build/release
CACHE := $(or $(filter /%,$(XDG_CACHE_HOME)),$(HOME)/.cache)/tandem
DEFAULT_MODEL := $(CACHE)/models/SmolLM2-135M-Instruct.Q4_1.gguf

# $(call build,TARGETS,FLAGS): configures when there is no build yet or FLAGS ask for it
define build
	@test -f $(BUILD)/build.ninja $(2) || cmake --preset release --log-level=WARNING $(3)
	@cmake --build --preset release --target $(1)
	@echo "built $(CURDIR)/$(BUILD)/tandem"
endef
dev_is_on := && grep -qs '^TANDEM_DEV:BOOL=ON' $(BUILD)/CMakeCache.txt

.PHONY: study methods test bench oracles fuzz clean

study:
	@tools/setup.sh build $(if $(MODEL)$(SHAPE),,model) $(if $(TEXT)$(SHAPE),,text)
	$(call build,tandem,,-DTANDEM_DEV=OFF)
	@$(BUILD)/tandem study $(if $(MODEL),'$(MODEL)') $(if $(SHAPE),--random-weights '$(SHAPE)') \
	  $(if $(ENCODINGS),--encodings '$(ENCODINGS)') --profile '$(PROFILE)' $(if $(TEXT),--text '$(TEXT)') \
	  $(if $(DEVICE),--device '$(DEVICE)')

methods:
	@tools/setup.sh build $(if $(MODEL),,model) $(if $(TEXT),,text) calibration
	$(call build,tandem,,-DTANDEM_DEV=OFF)
	@$(BUILD)/tandem methods $(if $(MODEL),'$(MODEL)') $(if $(TEXT),--text '$(TEXT)') \
	  $(if $(HELLASWAG),--hellaswag '$(HELLASWAG)')

test:
	@tools/setup.sh build test model text
	$(call build,all,$(dev_is_on),-DTANDEM_DEV=ON)
	@/usr/bin/python3 tools/run_tests.py $(BUILD)

# Against the reference implementations, in a virtual environment of their own; needs the network once.
oracles:
	@tools/setup.sh build test oracles model text calibration
	$(call build,all,$(dev_is_on),-DTANDEM_DEV=ON)
	@tests/oracle/run.sh $(BUILD)

# The kernels and the engine alone; with LLAMA_BENCH=PATH the engine beside llama.cpp, interleaved.
bench:
	@tools/setup.sh build test model
	$(call build,all,$(dev_is_on),-DTANDEM_DEV=ON)
	@$(BUILD)/tandem bench -m '$(or $(MODEL),$(DEFAULT_MODEL))'
	@$(if $(LLAMA_BENCH),/usr/bin/python3 bench/peers/llama_bench.py --llama-bench '$(LLAMA_BENCH)' \
	  --model '$(or $(MODEL),$(DEFAULT_MODEL))')

# Each fuzz target (tests/fuzz) for SECONDS, one after the other, with clang and sanitizers.
fuzz:
	@tools/setup.sh build fuzz
	@test -f build/fuzz/build.ninja || cmake --preset fuzz --log-level=WARNING
	@cmake --build --preset fuzz --target fuzz
	@/usr/bin/python3 tests/fuzz/run.py build/fuzz '$(SECONDS)' $(TARGETS)

clean:
	rm -rf build
