# Short names for what is one line anyway. Nothing needs `just`: copy the line.

# What is there to say
default:
    @just --list

# Format, lints, architecture: what the pre-commit hook runs
check:
    cargo fmt --all --check
    cargo clippy --all-targets --locked --quiet -- -D warnings
    cargo test --locked --quiet --test architecture

# Everything, as continuous integration runs it
all *ARGS:
    tests/run {{ARGS}}

# The tests whose names contain a word
test *FILTER:
    tests/run {{FILTER}}

# The lab; for example: just lab --once
lab *ARGS:
    cargo run --release --locked -- lab {{ARGS}}

# Measurements, against a baseline taken in the same run
bench:
    cargo bench --locked --bench federation

# Golden files and generated pages, written anew from the code; read the difference before you commit it
golden:
    UPDATE_GOLDEN=1 cargo test --locked

# Licences, bans, sources of all dependencies
deny:
    cargo deny --offline check bans licenses sources

# Lint of the protocol; tests/run --tools installs buf
buf:
    {{ env("CARGO_TARGET_DIR", "target") }}/tools/venv/bin/buf lint

# The reference of the library's modules
docs:
    cargo doc --locked --no-deps --document-private-items
