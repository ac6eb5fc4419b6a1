# Earshot. `make help` lists what can be made.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The Opus binding would link libopusfile, for files, which we do not read.
export GOFLAGS += -tags=nolibopusfile

GOFUMPT     := go run mvdan.cc/gofumpt@v0.12.0
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
UI_SRC  := $(shell find ui -type f -not -path 'ui/node_modules/*' -not -path 'ui/dist/*' -not -path 'ui/e2e/*' 2>/dev/null)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

.PHONY: run
run: build ## install what is missing, build, and serve the demo on localhost (ARGS='--listen 127.0.0.1:9090 ...' adds flags)
	bin/earshot serve --demo $(ARGS)

.PHONY: build
build: need-build ui/dist/home.html ## build the front end and bin/earshot
	CGO_ENABLED=1 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/earshot ./cmd/earshot

.PHONY: test
test: build need-test ui/node_modules ## all tests, browser tests included
	cd ui && npm run --silent test
	cd ui && npm run --silent budget
	go test -race -timeout 8m ./...
	cd ui && npm run --silent e2e

.PHONY: test-go
test-go: need-build ui/dist/home.html ## the Go tests alone, with the race detector
	go test -race -timeout 8m ./...

.PHONY: test-browser
test-browser: build need-test ui/node_modules ## the browser tests alone
	cd ui && npm run --silent e2e

.PHONY: lint
lint: need-build ui/node_modules ui/dist/home.html ## gofumpt, go vet, staticcheck, svelte-check, eslint, prettier, shellcheck
	@unformatted=$$($(GOFUMPT) -l .) || exit 1; \
	  if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...
	cd ui && npm run --silent check && npm run --silent lint && npm run --silent format:check
	bash -n .ci/run scripts/*.sh

.PHONY: portable
portable: need-build ## build for other systems what needs no C: all but the mix, and what is over it
	for os in windows darwin freebsd; do \
	  GOOS=$$os CGO_ENABLED=0 go build ./internal/fan/... ./internal/cluster ./internal/archive ./internal/demo || exit 1; done

.PHONY: fmt
fmt: ui/node_modules ## format everything
	$(GOFUMPT) -w .
	cd ui && npm run --silent format

.PHONY: fuzz
FUZZTIME ?= 20s
fuzz: need-build ## run every fuzz target for FUZZTIME (20s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: need-build ## what takes long: two simulated hours of a clock that is 100 ppm off
	go test -count 1 -timeout 30m -v -run TestHoursOfDrift ./internal/mix -mix.drift 2h

.PHONY: soak-browser
SOAK_MINUTES ?= 10
soak-browser: build need-test ui/node_modules ## Chromium over TLS beside a crowd for SOAK_MINUTES (10); appends to bench/RESULTS.md
	SOAK_MINUTES=$(SOAK_MINUTES) bench/beside.sh

.PHONY: bench
bench: build need-test ui/node_modules ## measure, beside peers and limits; appends to bench/RESULTS.md
	bench/run.sh

.PHONY: bench-peers
# Some rows only, and nothing in bench/: make bench-peers PEERS='--only push,icecast --rounds 3 --listeners 5000'
PEERS ?=
bench-peers: build ## install peers and measure beside them and the bare loops (half an hour); appends to bench/RESULTS.md
	scripts/peers.sh
	go build -trimpath -o out/peers/bin/ ./bench/bare ./bench/peers
	out/peers/bin/peers run $(PEERS)
	out/peers/bin/peers page out/peers/figures.json $(if $(PEERS),--dir out/peers)

.PHONY: release
release: need-build ui/dist/home.html ## a static binary and a Debian package, tried, in out/release
	scripts/release.sh $(VERSION)

.PHONY: clean
clean: ## remove what was built; data stays
	rm -rf bin ui/node_modules out
	find ui/dist -mindepth 1 -not -name .keep -delete

.PHONY: need-build need-test
need-build:
	@scripts/need.sh build
need-test: need-build
	@scripts/need.sh test

ui/node_modules: ui/package-lock.json
	cd ui && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

ui/dist/home.html: $(UI_SRC) | ui/node_modules
	cd ui && npm run --silent build
	@touch $@
