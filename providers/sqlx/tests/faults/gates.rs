//! Gates: triggers in a test's database that make a write wait until the test lets it continue.

use std::time::Duration;

use sqlx::PgPool;

use crate::scene::until;

/// Where a write stops: at a row of a table, either before it is written or during the commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    table: &'static str,
    operation: &'static str,
    moment: &'static str,
    /// Only rows with these columns, as JSON.
    only: &'static str,
}

impl Gate {
    /// Before a row is inserted.
    pub(crate) const fn insert(table: &'static str) -> Self {
        Self::new(table, "INSERT", "write")
    }

    /// Before a row is updated.
    pub(crate) const fn update(table: &'static str) -> Self {
        Self::new(table, "UPDATE", "write")
    }

    /// Before a row is deleted.
    pub(crate) const fn delete(table: &'static str) -> Self {
        Self::new(table, "DELETE", "write")
    }

    /// When everything is written and the commit was requested.
    pub(crate) const fn commit_of_insert(table: &'static str) -> Self {
        Self::new(table, "INSERT", "commit")
    }

    /// When everything is written and the commit was requested.
    pub(crate) const fn commit_of_update(table: &'static str) -> Self {
        Self::new(table, "UPDATE", "commit")
    }

    const fn new(table: &'static str, operation: &'static str, moment: &'static str) -> Self {
        Self {
            table,
            operation,
            moment,
            only: "{}",
        }
    }

    /// Only stops rows whose new values include these columns, as JSON.
    pub(crate) const fn only(mut self, columns: &'static str) -> Self {
        self.only = columns;
        self
    }

    /// Closes the gate: the next such write waits.
    pub(crate) async fn close(self, pool: &PgPool) {
        sqlx::query("INSERT INTO gate.closed VALUES ($1, $2, $3, $4::jsonb)")
            .bind(self.table)
            .bind(self.operation)
            .bind(self.moment)
            .bind(self.only)
            .execute(pool)
            .await
            .unwrap();
    }
}

/// The table is unlogged: after a crash all gates are open. A wait ends within milliseconds after its gate opens,
/// because each look at the table has its own snapshot.
const CREATE: &str = r"
    CREATE SCHEMA gate;
    CREATE UNLOGGED TABLE gate.closed (tab text, operation text, moment text, wanted jsonb);
    CREATE FUNCTION gate.pass() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE row jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    BEGIN
        WHILE EXISTS (
            SELECT FROM gate.closed
            WHERE tab = TG_TABLE_NAME AND operation = TG_OP AND moment = TG_ARGV[0]
              AND row @> wanted)
        LOOP
            PERFORM pg_sleep(0.05);
        END LOOP;
        IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
    END $$;
    DO $$
    DECLARE tab regclass;
    BEGIN
        FOR tab IN SELECT c.oid FROM pg_class c
            WHERE c.relkind = 'r' AND (c.relnamespace = 'encx'::regnamespace OR c.oid = to_regclass('patients'))
        LOOP
            EXECUTE format('CREATE TRIGGER gate_write BEFORE INSERT OR UPDATE OR DELETE ON %s
                FOR EACH ROW EXECUTE FUNCTION gate.pass(''write'')', tab);
            EXECUTE format('CREATE CONSTRAINT TRIGGER gate_commit AFTER INSERT OR UPDATE OR DELETE ON %s
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gate.pass(''commit'')', tab);
        END LOOP;
    END $$;";

/// Installs open gates on every table of encx and of the user.
pub(crate) async fn create(pool: &PgPool) {
    sqlx::raw_sql(CREATE).execute(pool).await.unwrap();
}

/// Opens all gates.
pub(crate) async fn open_all(pool: &PgPool) {
    sqlx::query("DELETE FROM gate.closed")
        .execute(pool)
        .await
        .unwrap();
}

/// Waits until a write in this database is stopped at a closed gate.
pub(crate) async fn until_one_waits(pool: &PgPool) {
    until(
        "a write is stopped at the gate",
        Duration::from_secs(20),
        async || {
            let waits = "SELECT count(*) > 0 FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
            sqlx::query_scalar::<_, bool>(waits)
                .fetch_one(pool)
                .await
                .unwrap()
        },
    )
    .await;
}
