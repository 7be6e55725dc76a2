//! Health, validation, status and counters, as operators see them.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod health;
mod stats;
mod validate;

/// The JSON that a probe would serve.
fn json(report: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(report).unwrap()
}
