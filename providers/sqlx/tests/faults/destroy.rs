//! Destroying a version while transactions are open that wrote rows under it: destruction waits for them, then counts
//! their rows.

use std::time::Duration;

use encx::keys::{Destruction, KeyManager, KeyState};
use encx::store::{OpenTransactions, StoreError};
use encx::{Ciphertext, Error};
use encx_tables::Rows;
use libtest_mimic::Trial;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};

use crate::member::{Ask, Member, context, notes};
use crate::scene::{Scene, play, until};
use crate::server::Server;
use crate::{invariants, trial};

const TENANT: &str = "t";
const ID: i64 = 1;

/// What a transaction has done when its version is to be destroyed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// It has begun, and done nothing else.
    Idle,
    /// It has written its row.
    Open,
    /// It has written its row and was prepared for a two-phase commit.
    Prepared,
}

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("destroy::waits_for_a_transaction_that_has_written", || {
            waits_for(Kind::Open);
        }),
        trial("destroy::waits_for_a_transaction_that_will_write", || {
            waits_for(Kind::Idle);
        }),
        trial("destroy::waits_for_a_prepared_transaction", || {
            waits_for(Kind::Prepared);
        }),
        trial("destroy::does_not_wait_for_a_later_transaction", later),
        trial("destroy::asks_for_the_right_to_see_all_sessions", hidden),
        trial("destroy::is_refused_by_a_standby", standby),
    ]
}

/// A transaction is open before the version is suspended, and commits its row after the quarantine.
fn waits_for(kind: Kind) {
    let server = Server::take();
    play(server.address(), async |scene| {
        let member = scene.member().await;
        let sealed = sealed(&member).await;
        let mut writer = connection(scene).await;
        writer.execute("BEGIN").await.unwrap();
        match kind {
            Kind::Idle => {}
            Kind::Open => insert(&mut writer, &sealed).await,
            Kind::Prepared => {
                insert(&mut writer, &sealed).await;
                writer.execute("PREPARE TRANSACTION 'two phases'").await.unwrap();
            }
        }
        let keys = member.keys().with_census(census(&scene.pool));
        let keys = keys.quarantine(Duration::from_millis(20));
        keys.rotate(&context(TENANT)).await.unwrap();
        let waits = destroyed(&keys, &sealed, |open| {
            // Only the prepared transaction: no session has it any longer.
            kind != Kind::Prepared || open.oldest.is_none()
        });
        match waits.await.unwrap() {
            Destruction::AwaitingTransactions { record, open } => {
                assert_eq!(record.state, KeyState::Suspended);
                assert_eq!(open.oldest.is_some(), kind != Kind::Prepared, "{open:?}");
                assert_eq!(open.oldest_prepared.is_some(), kind == Kind::Prepared, "{open:?}");
            }
            other => panic!("{other:?}"),
        }
        match kind {
            Kind::Idle => {
                insert(&mut writer, &sealed).await;
                writer.execute("COMMIT").await.unwrap();
            }
            Kind::Open => drop(writer.execute("COMMIT").await.unwrap()),
            Kind::Prepared => drop(writer.execute("COMMIT PREPARED 'two phases'").await.unwrap()),
        }
        // Now the row is counted, and can be read once the version is resumed.
        match destroyed(&keys, &sealed, only_others).await {
            Err(Error::StillInUse { columns, .. }) => assert_eq!(columns[0].rows, 1),
            other => panic!("{other:?}"),
        }
        let (tenant, id) = (context(TENANT), sealed.key_id());
        keys.set_state(&tenant, id, KeyState::Deactivated).await.unwrap();
        invariants::hold(scene).await;
        member.perform(Ask::Reencrypt { range: 10 }).await.unwrap();
        let gone = destroyed(&keys, &sealed, only_others).await.unwrap();
        assert!(gone.is_destroyed(), "{gone:?}");
        invariants::hold(scene).await;
    });
}

/// A database that always has some open transaction does not keep a version forever.
fn later() {
    let server = Server::take();
    play(server.address(), async |scene| {
        let member = scene.member().await;
        let sealed = sealed(&member).await;
        let keys = member.keys().with_census(census(&scene.pool));
        keys.rotate(&context(TENANT)).await.unwrap();
        let suspended = keys.destroy(&context(TENANT), sealed.key_id()).await.unwrap();
        assert!(
            matches!(suspended, Destruction::Quarantined { .. }),
            "{suspended:?}"
        );
        // A day passes. A transaction has begun since.
        let age = "UPDATE encx.data_keys SET changed_at = changed_at - interval '25 hours' WHERE state = 'suspended'";
        scene.pool.execute(age).await.unwrap();
        let mut writer = connection(scene).await;
        writer.execute("BEGIN").await.unwrap();
        let new = self::sealed(&member).await;
        insert(&mut writer, &new).await;
        let gone = keys.destroy(&context(TENANT), sealed.key_id()).await.unwrap();
        assert!(gone.is_destroyed(), "{gone:?}");
        writer.execute("COMMIT").await.unwrap();
        invariants::all_read(scene, &member).await;
    });
}

/// A role that may not see other sessions must not conclude that there are none.
fn hidden() {
    let server = Server::take();
    play(server.address(), async |scene| {
        let member = scene.member().await;
        let sealed = sealed(&member).await;
        let role = format!("auditor_{}", uuid::Uuid::new_v4().simple());
        for statement in [
            format!("CREATE ROLE {role} LOGIN"),
            format!("GRANT SELECT ON patients TO {role}"),
        ] {
            scene.pool.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let options = options(scene).username(&role);
        let pool = PgPool::connect_with(options).await.unwrap();
        let keys = member.keys().with_census(census(&pool));
        let keys = keys.without_quarantine("a test");
        keys.rotate(&context(TENANT)).await.unwrap();
        let refused = keys.destroy(&context(TENANT), sealed.key_id()).await.unwrap_err();
        assert!(
            matches!(refused, Error::Store(StoreError::Database { .. })),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("pg_read_all_stats"), "{refused}");
        let grant = format!("GRANT pg_read_all_stats TO {role}");
        scene.pool.execute(AssertSqlSafe(grant)).await.unwrap();
        let gone = destroyed(&keys, &sealed, only_others).await.unwrap();
        assert!(gone.is_destroyed(), "{gone:?}");
        pool.close().await;
        for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
            scene.pool.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    });
}

/// A standby is read-only: the error says so, and the version is unchanged.
fn standby() {
    let server = Server::take();
    play(server.address(), async |scene| {
        let member = scene.member().await;
        let sealed = sealed(&member).await;
        let keys = member.keys().without_quarantine("a test");
        keys.rotate(&context(TENANT)).await.unwrap();
        let tables = "SELECT jsonb_build_array(
            (SELECT jsonb_agg(to_jsonb(k) ORDER BY id) FROM encx.data_keys k),
            (SELECT jsonb_agg(to_jsonb(w) ORDER BY key_id, to_jsonb(w)) FROM encx.wrapped_keys w),
            (SELECT jsonb_agg(to_jsonb(a) ORDER BY seq) FROM encx.audit_log a))::text";
        let tables = async || {
            let mut connection = connection(scene).await;
            sqlx::query_scalar::<_, String>(tables)
                .fetch_one(&mut connection)
                .await
                .unwrap()
        };
        let before = tables().await;
        server.kill();
        server.start_standby();
        // An older connection may have to be found broken first.
        until("the standby refuses", Duration::from_secs(20), async || {
            let destroyed = keys.destroy(&context(TENANT), sealed.key_id()).await;
            let refused = destroyed.unwrap_err();
            assert!(
                matches!(refused, Error::Store(StoreError::Unavailable { .. })),
                "{refused:?}"
            );
            refused.to_string().contains("is a standby, which is read-only")
        })
        .await;
        let tenant = context(TENANT);
        let destroyed = keys.destroy_with_data(&tenant, sealed.key_id(), "a test");
        let refused = destroyed.await.unwrap_err();
        assert!(refused.to_string().contains("read-only"), "{refused}");
        assert_eq!(tables().await, before);

        server.start();
        until("the primary destroys", Duration::from_secs(20), async || {
            let destroyed = keys.destroy(&context(TENANT), sealed.key_id()).await;
            destroyed.is_ok_and(|destroyed| destroyed.is_destroyed())
        })
        .await;
    });
}

fn census(pool: &PgPool) -> encx_tables::Census {
    Rows::postgres(pool.clone()).census([notes()]).unwrap()
}

/// Destroys a version. Retries while its quarantine lasts, or while the open transactions are not the expected ones: a
/// member's heartbeat is also a transaction, for a moment.
async fn destroyed(
    keys: &KeyManager,
    sealed: &Ciphertext,
    is_expected: impl Fn(&OpenTransactions) -> bool,
) -> Result<Destruction, Error> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let outcome = keys.destroy(&context(TENANT), sealed.key_id()).await?;
        let again = match &outcome {
            Destruction::Quarantined { .. } => true,
            Destruction::AwaitingTransactions { open, .. } => !is_expected(open),
            _ => false,
        };
        if !again {
            return Ok(outcome);
        }
        assert!(tokio::time::Instant::now() < deadline, "still {outcome:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The test has no open transaction: any other one ends by itself.
fn only_others(_: &OpenTransactions) -> bool {
    false
}

/// Encrypts a patient's note, as a transaction does before writing it.
async fn sealed(member: &Member) -> Ciphertext {
    let (tenant, text, id) = (TENANT.to_owned(), invariants::text_of(TENANT, ID), ID);
    let sealed = member.perform(Ask::Encrypt { tenant, text, id }).await.unwrap();
    Ciphertext::parse(sealed).unwrap()
}

async fn insert(writer: &mut PgConnection, sealed: &Ciphertext) {
    let insert = sqlx::query("INSERT INTO patients VALUES ($1, $2, $3)");
    let insert = insert.bind(ID).bind(TENANT).bind(sealed.as_bytes());
    insert.execute(writer).await.unwrap();
}

fn options(scene: &Scene) -> PgConnectOptions {
    PgConnectOptions::clone(&scene.pool.connect_options())
}

async fn connection(scene: &Scene) -> PgConnection {
    options(scene).connect().await.unwrap()
}
