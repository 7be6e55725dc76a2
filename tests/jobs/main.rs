//! Jobs: ranges that workers share, and workers that are slow, stop or die.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod engine;
mod rewrap;
mod rotate;
mod support;
