//! Public errors print as text where a program shows their `Debug`.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::sync::Arc;

use encx_tables::RowsError;
use encx_test_support::error_types;

#[test]
fn every_error_reads_as_text_with_its_causes() {
    let database = RowsError::Database {
        source: Arc::new(sqlx::Error::Io(std::io::Error::other("connection refused"))),
        retryable: true,
    };
    error_types::check(
        // The stores have no public error of their own.
        &[
            concat!(env!("CARGO_MANIFEST_DIR"), "/src"),
            concat!(env!("CARGO_MANIFEST_DIR"), "/../providers/sqlx/src"),
        ],
        &[
            ("RowsError", Box::new(RowsError::Mismatch)),
            ("RowsError", Box::new(database)),
        ],
        &[],
    );
}
