.PHONY: run test bench lint

# Start the chat on http://localhost:3000.
run:
	go run .

# Everything that has to hold: formatting, vet, staticcheck, govulncheck, all
# tests with the race detector, the browser. Installs what it lacks on Debian.
test:
	@./.ci/test

# Memory and CPU per connection and message, next to gorilla/websocket by hand.
bench:
	go run ./adapter/bench

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
