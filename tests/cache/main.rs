//! What the cache promises: how often the KMS and the key store are asked, how long a key stays in memory, and what
//! is believed about its state. Time moves only when a test moves it.

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
