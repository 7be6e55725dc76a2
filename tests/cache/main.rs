//! The guarantees of the cache: how often it calls the KMS and the key store, how long a key stays in memory, and how
//! long its state is trusted. Time moves only when a test moves it.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "a handle that goes away is what is tested"
)]

mod breaker;
mod lifetime;
mod missed;
mod outage;
mod refresh;
mod runtime;
mod send;
mod shutdown;
mod single_flight;
mod stale;
mod states;
mod unknown;
mod vanished;
