# make prints what there is to make. Everything here is one go command or one
# script, so make is a convenience and never needed.
.DEFAULT_GOAL := help
.PHONY: help story test race proof rolling mutants cover bench fuzz lint linters tidy outdated ci

FUZZTIME ?= 30s
COUNT ?= 6
TOOL := GOWORK=off go tool -modfile=tools/go.mod

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

story: ## watch API keys issued, used, rotated, revoked and refused
	go run ./examples/quickstart

test: ## every test of every module
	go test work

race: ## the same under the race detector, in random order
	go test -race -shuffle=on work

proof: ## linearizability, staleness and ten million races, and the long forms of other tests, for about an hour
	FOB_LONG=1 go test -count=1 -timeout 1h ./backend/backendtest ./backend/badger ./backend/etcd/etcdtest
	FOB_LONG=1 go test -count=1 -timeout 1h -run Crowd ./internal/fleettest
	FOB_RACES=10000000 FOB_PROOF_ROUNDS=200 FOB_LONG=1 go test -race -timeout 3h -v \
		-run 'TestKill9|TestLinearizable|TestBoundedStaleness|TestVerifyRacesRevoke|TestTheProofBites' .

rolling: ## programs of earlier commits beside that of this one, on one store
	go test -count=1 ./internal/fleettest/rolling

mutants: ## what the tests of what decides about credentials do not notice, for hours
	go run ./tools/mutants

cover: ## coverage of the root module, as cover.html
	go test -short -coverprofile=cover.out -coverpkg=./... ./...
	go tool cover -func=cover.out | tail -1
	go tool cover -html=cover.out -o cover.html

bench: ## the benchmarks, with a table, a page and charts in bench/out
	go run ./bench/report -count $(COUNT)

fuzz: ## every fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) .ci/fuzz

lint: ## gofmt, go vet, staticcheck, govulncheck and the rules of internal/lint
	.ci/run format vet invariants static vuln

linters: ## golangci-lint, which must be installed (see CONTRIBUTING.md)
	for dir in $$(go list -m -f '{{.Dir}}'); do (cd $$dir && golangci-lint run ./...) || exit 1; done

tidy: ## go mod tidy in every module
	for dir in $$(go list -m -f '{{.Dir}}'); do (cd $$dir && GOWORK=off go mod tidy) || exit 1; done

outdated: ## requirements that have fallen behind, asked of the module proxy
	.ci/outdated

ci: ## all that a change must pass
	.ci/run
