//! A service that keeps the users of its tenants. What is personal is encrypted before it reaches the database.
//!
//! ```text
//! cargo run -p axum_users
//! ```
//!
//! begins on SQLite in the current folder, with no set-up. `DATABASE_URL=postgres://..` puts it on PostgreSQL.
//!
//! Who may call what is left out: in a real service the tenant comes from the caller's session, and what is under
//! `/tenants` is for operators.

mod api_error;
mod database;
mod keys;
mod operations;
mod routes;
mod service;
mod start_error;
mod user;
mod users;

pub use service::{Service, Settings};
pub use start_error::StartError;
