//! Mistakes do not compile, and the compiler says what to write. Each file has several, and all of them are reported.
//!
//! After a change of messages, run `TRYBUILD=overwrite cargo test -p encx-derive` and read what changed.

#[test]
fn mistakes_are_compile_errors_that_say_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

/// The generated code calls hidden items of `encx`, so both versions must match.
#[test]
fn encx_takes_this_version_and_no_other() {
    let manifest = include_str!("../../Cargo.toml");
    let pinned = format!(
        "encx-derive = {{ path = \"derive\", version = \"={}\"",
        env!("CARGO_PKG_VERSION")
    );
    assert!(manifest.contains(&pinned), "{pinned}");
}
