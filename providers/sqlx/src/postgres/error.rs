//! What PostgreSQL's errors mean to a caller, by code and never by text.

use encx::StoreError;

use crate::error::store_error_of;

/// Tells apart what may succeed later, what lost a race, and what was refused.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    store_error_of(error, of_code, is_passing)
}

/// See appendix A of PostgreSQL's manual.
fn of_code(code: &str) -> Option<StoreError> {
    match code {
        // unique_violation; serialization_failure and deadlock_detected: somebody else was first.
        "23505" | "40001" | "40P01" => Some(StoreError::Conflict),
        // undefined_table, invalid_schema_name, undefined_column
        "42P01" | "3F000" | "42703" => Some(StoreError::NotMigrated {
            found: format!("SQLSTATE {code}"),
        }),
        _ => None,
    }
}

pub(crate) fn is_passing(code: &str) -> bool {
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
