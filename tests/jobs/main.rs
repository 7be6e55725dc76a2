//! Jobs: ranges that workers share, and what happens when one of them is slow, stops or dies.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod engine;
mod rewrap;
mod rotate;
mod support;
