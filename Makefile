# Branchline. `make` or `make help` lists the targets.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules
.DEFAULT_GOAL := help

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
WEB_SRC   := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)
GO_SRC    := $(shell find . -name '*.go' -not -path '*/node_modules/*') go.mod go.sum
GO_FLAGS  := -trimpath -ldflags '-X main.version=$(VERSION)'
ARTEFACTS := $(CURDIR)/artefacts
PROPERTIES := $(shell grep -rl --include='*_test.go' pgregory.net/rapid . | xargs -n1 dirname | sort -u)

.PHONY: help demo build test test-go test-web test-browser test-power test-wan bench-storage bench-wan race soak fuzz lint generate proto-release clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: build ## run the main job: a hub, two branches, four cameras (ARGS="--http :8480 --for 60s")
	@bin/branchline demo $(ARGS)

build: need-go need-node bin/branchline ## build bin/branchline, the console embedded

test: test-go test-web test-browser ## run all tests

test-go: build | need-go ## test the Go code, with real processes and links
	go vet ./...
	@command -v ffmpeg >/dev/null || echo "skipped: comparisons with another decoder, as ffmpeg is not installed"
	go test -timeout 15m $$(go list ./... | grep -v /e2e | grep -vxFf <(go list $(PROPERTIES)))
	go test -timeout 15m $(PROPERTIES) -rapid.seed=1 # a run fails for its change; make soak looks further
	BRANCHLINE=$(CURDIR)/bin/branchline go test -timeout 15m ./e2e/... # alone: it measures delays

test-web: web/node_modules/.installed ## check and test the console's own code
	cd web && npm run --silent check && npm run --silent test

test-browser: build e2e/web/node_modules/.installed | need-chromium ## drive the console in Chromium; screenshots in artefacts/
	mkdir -p $(ARTEFACTS)
	cd e2e/web && BRANCHLINE=$(CURDIR)/bin/branchline ARTEFACTS=$(ARTEFACTS) npm run --silent test

test-power: | need-go need-volumes ## cut the power of real volumes, have them fail, stall and fill up; as root (CUTS=60 DIR=/dev/shm)
	BRANCHLINE_POWER=1 go test -count=1 -timeout 60m -v -run 'TestRealCutAtEveryStep' ./segstore
	BRANCHLINE_POWER=1 CUTS=$${CUTS:-60} go test -count=1 -timeout 12h -v ./e2e/power # alone: it measures losses

test-wan: build | need-go ## run real sites on bad networks, half an hour; as root (FLAP=10m, ARGS="-run TestNAT")
	BRANCHLINE=$(CURDIR)/bin/branchline BRANCHLINE_WAN=1 go test -count=1 -timeout 2h -v ./e2e/network $(ARGS)

bench-storage: build | need-go ## measure the storage, half an hour; results in bench/results/storage.md (ARGS="-only cpu")
	go run ./bench/storage -out bench/results/storage.md $(ARGS)

bench-wan: build | need-go need-iperf ## measure links beside TCP BBR and quic-go, an hour; as root (ARGS="-only bulk -rtt 80ms -loss 1")
	go build -o bin/bench-wan ./bench/wan
	bin/bench-wan -out bench/results/wan.md $(ARGS)

race: | need-go ## test the Go code under the race detector
	go test -race -timeout 30m ./...

soak: | need-go ## look for what fails, with CHECKS (2000) of each property and SEEDS (1000) of each simulated network
	go test -count=1 -timeout 6h $(PROPERTIES) -rapid.checks=$${CHECKS:-2000}
	SEEDS=$${SEEDS:-1000} go test -count=1 -timeout 6h -v -run '^(TestHeal|TestRebinding|TestLossy)$$' ./federation
	SEEDS=$${DAYS:-20} SITES=$${SITES:-500} HOURS=$${HOURS:-24} go test -count=1 -v -timeout 6h -run 'TestDay|TestBudget' ./federation/members

fuzz: | need-go ## run each fuzz target for FUZZTIME (10s)
	@for p in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$p/*_test.go | cut -c6-); do \
	    echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-10s} $$p; done; done

lint: bin/golangci-lint tools/node_modules/.installed | need-go ## golangci-lint, buf lint, buf breaking against the last release
	bin/golangci-lint run
	tools/node_modules/.bin/buf lint proto
	tools/node_modules/.bin/buf breaking proto --against proto/released.binpb

proto-release: tools/node_modules/.installed ## make today's wire format the one that must not be broken; at a release
	tools/node_modules/.bin/buf build proto --exclude-source-info -o proto/released.binpb

generate: tools/node_modules/.installed web/node_modules/.installed | need-go ## make the generated code again: wire format, API, its types
	cd tools && go build -o ../bin/ google.golang.org/protobuf/cmd/protoc-gen-go github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen
	cd proto && PATH="$(CURDIR)/bin:$$PATH" ../tools/node_modules/.bin/buf generate
	cd hub/api && ../../bin/oapi-codegen -config oapi-codegen.yaml openapi.yaml
	cd web && npm run --silent generate

clean: ## delete all that was built or installed here
	rm -rf bin artefacts web/node_modules e2e/web/node_modules tools/node_modules
	find web/dist -mindepth 1 ! -name .keep -delete

bin/branchline: $(GO_SRC) web/dist/index.html | need-go
	CGO_ENABLED=0 go build $(GO_FLAGS) -o $@ ./cmd/branchline

bin/golangci-lint: tools/go.mod tools/go.sum | need-go
	cd tools && go build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

web/dist/index.html: $(WEB_SRC) web/node_modules/.installed
	cd web && npm run --silent build
	@touch $@

%/node_modules/.installed: %/package.json %/package-lock.json | need-node
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# One package of an exact version, with a binary for each platform: a lock file would name only this one's.
tools/node_modules/.installed: tools/package.json | need-node
	cd tools && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: need-go need-node need-chromium need-volumes need-iperf
# Quiet checks of a version: $(call at-least,found,wanted)
at-least = [ "$$(printf '%s\n' $(2) "$(1)" | sort -V | head -1)" = $(2) ]

need-go:
	@found=$$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true); $(call at-least,$$found,1.26) || { \
	  echo "make: Go 1.26 or newer is needed, found $${found:-none}: see https://go.dev/doc/install" >&2; exit 1; }

need-node:
	@found=$$(npm --version >/dev/null 2>&1 && node --version | sed 's/^v//' || true); $(call at-least,$$found,20.19) || { \
	  echo "make: Node.js 20.19 or newer with npm is needed, found $${found:-none}: see https://nodejs.org" >&2; exit 1; }

need-chromium:
	@command -v chromium >/dev/null || { \
	  echo "installing chromium for the browser tests"; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
	  { echo "make: the browser tests need chromium: sudo apt-get install chromium" >&2; exit 1; }

# Without these, or without root and loop devices, the tests say what they skip.
need-volumes:
	@(for p in mkfs.xfs mkfs.ext4 nbdkit nbdfuse fusermount3; do command -v $$p >/dev/null || exit 1; done) || { \
	  echo "installing file systems and block devices for the power tests"; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends xfsprogs e2fsprogs nbdkit libnbd-bin fuse3 >/dev/null; } || \
	  echo "make: the power tests want: sudo apt-get install xfsprogs e2fsprogs nbdkit libnbd-bin fuse3" >&2

need-iperf:
	@command -v iperf3 >/dev/null && command -v ss >/dev/null || { \
	  echo "installing iperf3 for comparison"; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends iperf3 iproute2 >/dev/null; } || \
	  { echo "make: the comparison needs iperf3: sudo apt-get install iperf3 iproute2" >&2; exit 1; }
