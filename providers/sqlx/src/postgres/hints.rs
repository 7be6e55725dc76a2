//! Hints of changes: what the database tells whoever listens.

use encx::Scope;

/// The channel on which writers notify.
pub(super) const CHANNEL: &str = "encx_keys";

/// Writes the payload that tells of a scope whose keys changed.
pub(super) fn of_scope(scope: &Scope) -> String {
    use std::fmt::Write;
    let mut payload = "scope:".to_owned();
    for byte in scope.as_bytes() {
        // Writing to a `String` does not fail.
        let _ = write!(payload, "{byte:02x}");
    }
    payload
}
