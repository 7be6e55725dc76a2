//! A service that stores the users of its tenants. It encrypts personal data before it reaches the database.
//!
//! ```text
//! cargo run -p axum_users
//! ```
//!
//! starts on SQLite in the current folder, without set-up. `DATABASE_URL=postgres://..` selects PostgreSQL.
//!
//! Authorization is left out: in a real service the tenant comes from the caller's session, and only operators may call
//! `/tenants`.

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
