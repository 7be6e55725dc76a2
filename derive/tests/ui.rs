//! Mistakes do not compile, and the compiler says what to write. Each file has several, and all of them are shown.
//!
//! After a change of messages: `TRYBUILD=overwrite cargo test -p encx-derive`, and read what changed.

#[test]
fn mistakes_are_compile_errors_that_say_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
