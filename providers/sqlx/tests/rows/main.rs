//! The rows of users' own tables: re-encrypted, counted and adopted, on PostgreSQL and SQLite.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "../common/mod.rs"]
mod common;

mod adopt;
mod census;
mod places;
#[cfg(feature = "postgres")]
mod postgres;
mod reencrypt;
mod support;

/// Mounts tests that are given a database, on both.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "postgres")]
        mod on_postgres {
            $(
                #[test]
                fn $test() {
                    crate::support::on_postgres(super::$test);
                }
            )+
        }
        #[cfg(feature = "sqlite")]
        mod on_sqlite {
            $(
                #[test]
                fn $test() {
                    crate::support::on_sqlite(super::$test);
                }
            )+
        }
    };
}
pub(crate) use on_both;
