//! Rows of users' own tables: re-encrypted, counted and adopted, on PostgreSQL and SQLite.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "../../../providers/sqlx/tests/common/mod.rs"]
mod common;

mod adopt;
mod census;
mod faults;
mod odd;
mod places;
#[cfg(feature = "postgres")]
mod postgres;
mod reencrypt;
mod sealed;
mod support;
mod under;
mod verify;

/// Mounts tests that take a database, on both.
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

fn is_send(_: impl Send) {}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_are_send(
    (rows, census, adoption): (encx_tables::Rows, encx_tables::Census, encx_tables::AdoptionJobs),
    (crypto, context): (&encx::Crypto, &encx::EncryptionContext),
) {
    is_send(rows.reencrypt(crypto, []).unwrap().run());
    is_send(rows.verify(crypto, []).unwrap().run());
    is_send(rows.verify_sample(crypto, [], 1));
    is_send(rows.sealed_columns(&crypto.key_store()));
    is_send(adoption.status());
    is_send(census.count());
    is_send(adoption.backfill().run());
    is_send(adoption.verify().start());
    is_send(adoption.contract().run());
    is_send(encx_tables::read_either(
        crypto,
        context,
        None,
        None::<String>,
        encx_test_support::SSN.row(1),
        support::UNTIL,
    ));
}
