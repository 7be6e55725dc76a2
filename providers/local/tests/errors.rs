//! Public errors print themselves as text where a program shows their `Debug`.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::io;

use encx_local::LocalKmsError;
use encx_test_support::error_types;

#[test]
fn every_error_reads_as_text_with_its_causes() {
    let io = LocalKmsError::Io {
        action: "read",
        path: "/keys".into(),
        source: io::Error::other("disk on fire"),
    };
    error_types::check(
        &[concat!(env!("CARGO_MANIFEST_DIR"), "/src")],
        &[
            ("LocalKmsError", Box::new(LocalKmsError::NoRuntime)),
            ("LocalKmsError", Box::new(io)),
        ],
        &[],
    );
}
