//! Classifies PostgreSQL's errors, by code and never by text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use encx_core::store::StoreError;
use sqlx::postgres::PgConnectOptions;

use crate::error::{code_of, may_pass, store_error_of, without_rows};

/// Classifies an error: may succeed later, lost a race, or refused.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    store_error_of(error, of_code, is_passing)
}

/// The address of a database, without user and password.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        Self(format!("{host}:{}", options.get_port()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why connecting failed, and to which address. Never contains the password.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NotConnected {
    #[error("cannot connect to PostgreSQL at {place}: {source}{advice}")]
    Failed {
        place: Place,
        advice: &'static str,
        source: Arc<sqlx::Error>,
    },
    #[error(
        "PostgreSQL at {place} accepted no connection within {within:?} and did not refuse it either; check the host, \
         the port and the firewalls in between"
    )]
    Silent { place: Place, within: Duration },
}

impl NotConnected {
    pub(super) fn new(options: &PgConnectOptions, error: sqlx::Error) -> Self {
        Self::Failed {
            place: Place::of(options),
            advice: advice(&error),
            source: Arc::new(without_rows(error)),
        }
    }

    pub(super) fn silent(options: &PgConnectOptions, within: Duration) -> Self {
        Self::Silent {
            place: Place::of(options),
            within,
        }
    }

    /// Tells whether the server answered that it accepts no connections at the moment, as while it starts.
    pub(super) fn may_end_soon(&self) -> bool {
        match self {
            Self::Failed { source, .. } => is_passing(&code_of(source)),
            Self::Silent { .. } => false,
        }
    }
}

impl From<NotConnected> for StoreError {
    fn from(error: NotConnected) -> Self {
        let passing = match &error {
            NotConnected::Failed { source, .. } => may_pass(source, is_passing),
            NotConnected::Silent { .. } => true,
        };
        if passing {
            Self::unavailable(error)
        } else {
            Self::database(error)
        }
    }
}

/// Returns advice about a failed connection.
fn advice(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Io(_) => "; is the server running, and are host and port right?",
        sqlx::Error::Tls(_) => {
            "; check `sslmode` and the certificates, and whether encx-sqlx has feature `tls-rustls`"
        }
        _ => match &*code_of(error) {
            // invalid_password, invalid_authorization_specification
            "28P01" | "28000" => "; check the user and the password in the URL or the pool's options",
            // invalid_catalog_name
            "3D000" => "; create the database, or correct its name",
            _ => "",
        },
    }
}

/// See appendix A of PostgreSQL's manual.
fn of_code(code: &str) -> Option<StoreError> {
    match code {
        // unique_violation; serialization_failure and deadlock_detected: another writer was first.
        "23505" | "40001" | "40P01" => Some(StoreError::Conflict),
        // undefined_table, invalid_schema_name, undefined_column
        "42P01" | "3F000" | "42703" => Some(StoreError::NotMigrated {
            found: format!("SQLSTATE {code}"),
        }),
        _ => None,
    }
}

/// Tells by SQLSTATE whether the same may succeed later.
#[must_use]
pub fn is_passing(code: &str) -> bool {
    match code {
        // read_only_sql_transaction: a standby that is about to take over, or no longer the primary
        // lock_not_available; query_canceled, which is what a timeout does; idle_in_transaction_session_timeout
        "25006" | "55P03" | "57014" | "25P03" => true,
        // connection_exception, insufficient_resources; operator_intervention: shutting down, starting up, crashed
        _ => code.starts_with("08") || code.starts_with("53") || code.starts_with("57P0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_manual_says() {
        for code in [
            "08006", "08P01", "53300", "57P01", "57P03", "25006", "55P03", "57014", "25P03",
        ] {
            assert!(is_passing(code) && of_code(code).is_none(), "{code}");
        }
        for code in ["23505", "40001", "40P01"] {
            assert!(matches!(of_code(code), Some(StoreError::Conflict)), "{code}");
        }
        for code in ["42P01", "3F000", "42703"] {
            assert!(
                matches!(of_code(code), Some(StoreError::NotMigrated { .. })),
                "{code}"
            );
        }
        for code in ["23514", "42501", "28P01", "42601", "22021"] {
            assert!(!is_passing(code) && of_code(code).is_none(), "{code}");
        }
        assert!(store_error(sqlx::Error::PoolTimedOut).is_retryable());
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(store_error(sqlx::Error::Io(lost)).is_retryable());
    }
}
