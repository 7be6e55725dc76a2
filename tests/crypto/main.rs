//! What `Crypto` and `Keyring` encrypt, decrypt and refuse, on an in-memory KMS and key store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod batches;
mod between_chunks;
mod buffers;
mod fields;
mod located;
mod nearby;
mod refusals;
mod rule;
