//! Queries on the database's catalogue: columns, and estimated row counts.

use sqlx::Row as _;

use crate::error::RowsError;
use crate::ident::Ident;
use crate::layout::{HEADER, Layout};
#[cfg(feature = "postgres")]
use crate::postgres;
use crate::rows::Pool;
use crate::sql::safe;
#[cfg(feature = "sqlite")]
use crate::sqlite;

/// A column whose type allows ciphertexts.
pub(crate) struct Candidate {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) column: String,
    /// Whether the search path finds the table by name.
    pub(crate) is_visible: bool,
    /// Whether names are case-sensitive.
    pub(crate) has_case: bool,
}

/// The beginning of a value, and its length in bytes.
pub(crate) struct Glance {
    pub(crate) head: Vec<u8>,
    pub(crate) len: i64,
}

/// Skips partitions, whose rows belong to their parent table. Resolves domains over domains, up to two
/// levels.
#[cfg(feature = "postgres")]
const CANDIDATES_OF_POSTGRES: &str = "
    SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS attribute,
           pg_catalog.pg_table_is_visible(c.oid) AS visible
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type b ON y.typtype = 'd' AND b.oid = y.typbasetype
    LEFT JOIN pg_catalog.pg_type d ON b.typtype = 'd' AND d.oid = b.typbasetype
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('encx', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
      AND coalesce(d.oid, b.oid, y.oid) = 'pg_catalog.bytea'::regtype
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
      AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
    ORDER BY 1, 2, a.attnum";

/// Skips hidden columns, which virtual tables have. Generated columns are kept.
#[cfg(feature = "sqlite")]
const CANDIDATES_OF_SQLITE: &str = "
    SELECT 'main' AS schema, t.name AS name, x.name AS attribute, 1 AS visible
    FROM pragma_table_list AS t JOIN pragma_table_xinfo(t.name) AS x
    WHERE t.schema = 'main' AND t.type = 'table' AND x.hidden <> 1
      AND t.name NOT LIKE 'encx\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    ORDER BY t.name, x.cid";

/// Estimates rows, of all partitions if any, times the share of the column that is not NULL. NULL if a table
/// was never analysed. $1 is the table's quoted name, $2 the column's name.
#[cfg(feature = "postgres")]
const ESTIMATE: &str = "
    SELECT CASE WHEN min(c.reltuples) < 0 OR sum(c.reltuples) = 0 THEN NULL
                ELSE (sum(c.reltuples) * (1 - coalesce((
                    SELECT s.null_frac FROM pg_catalog.pg_class t
                    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
                    JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = $2
                    WHERE t.oid = pg_catalog.to_regclass($1)
                    ORDER BY s.inherited DESC LIMIT 1), 0)))::bigint END
    FROM pg_catalog.pg_class c
    WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind <> 'p'
       OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) WHERE isleaf)";

/// Runs the same code on either pool. `failed` converts database errors.
macro_rules! with_pool {
    ($pool:expr, |$name:ident, $failed:ident| $do:expr) => {
        match $pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres($name) => {
                let $failed = postgres::failed;
                $do
            }
            #[cfg(feature = "sqlite")]
            Pool::Sqlite($name) => {
                let $failed = sqlite::failed;
                $do
            }
        }
    };
}

/// Lists table columns that may hold ciphertexts.
pub(crate) async fn candidates(pool: &Pool) -> Result<Vec<Candidate>, RowsError> {
    let (statement, has_case) = match pool {
        #[cfg(feature = "postgres")]
        Pool::Postgres(_) => (CANDIDATES_OF_POSTGRES, true),
        #[cfg(feature = "sqlite")]
        Pool::Sqlite(_) => (CANDIDATES_OF_SQLITE, false),
    };
    with_pool!(pool, |pool, failed| {
        let found = sqlx::query(statement).fetch_all(pool).await.map_err(failed)?;
        let candidates = found.iter().map(|row| {
            Ok(Candidate {
                schema: row.try_get("schema")?,
                table: row.try_get("name")?,
                column: row.try_get("attribute")?,
                is_visible: row.try_get("visible")?,
                has_case,
            })
        });
        candidates.collect::<Result<_, _>>().map_err(failed)
    })
}

/// Reads the beginnings of some values.
pub(crate) async fn glances(
    pool: &Pool,
    table: &Ident,
    column: &Ident,
    limit: u32,
) -> Result<Vec<Glance>, RowsError> {
    let (table, column) = (table.as_str(), column.as_str());
    let (value, filter) = match pool {
        // Functions of a domain's base type require a cast.
        #[cfg(feature = "postgres")]
        Pool::Postgres(_) => (format!("t.{column}::bytea"), format!("t.{column} IS NOT NULL")),
        #[cfg(feature = "sqlite")]
        Pool::Sqlite(_) => (format!("t.{column}"), format!("typeof(t.{column}) = 'blob'")),
    };
    let statement = format!(
        "SELECT substr({value}, 1, {HEADER}) AS head, CAST(octet_length({value}) AS bigint) AS len FROM {table} AS t WHERE {filter} LIMIT {limit}"
    );
    with_pool!(pool, |pool, failed| {
        let found = sqlx::query(safe(statement)).fetch_all(pool).await;
        let found = found.map_err(failed)?;
        let glances = found.iter().map(|row| {
            Ok(Glance {
                head: row.try_get("head")?,
                len: row.try_get("len")?,
            })
        });
        glances.collect::<Result<_, _>>().map_err(failed)
    })
}

/// Estimates how many ciphertexts a column has; counts them if the database has no estimate.
pub(crate) async fn estimate(pool: &Pool, layout: &Layout) -> Result<i64, RowsError> {
    #[cfg(feature = "postgres")]
    #[allow(
        irrefutable_let_patterns,
        reason = "without feature `sqlite` there is one database"
    )]
    if let Pool::Postgres(pool) = pool {
        let query = sqlx::query_scalar(ESTIMATE)
            .bind(layout.table.as_str().to_owned())
            .bind(layout.described.sql_column.clone());
        // If the estimate fails, as on servers that only resemble PostgreSQL, count the rows.
        let estimate: Result<Option<i64>, _> = query.fetch_one(pool).await;
        if let Ok(Some(rows)) = estimate {
            return Ok(rows);
        }
    }
    let (table, cipher) = (layout.table.as_str(), layout.cipher.as_str());
    let statement = format!("SELECT count(t.{cipher}) FROM {table} AS t");
    with_pool!(pool, |pool, failed| {
        let query = sqlx::query_scalar(safe(statement));
        query.fetch_one(pool).await.map_err(failed)
    })
}

/// Counts rows with only a plaintext, with both, and with only a ciphertext.
pub(crate) async fn adopted(pool: &Pool, layout: &Layout, plain: &str) -> Result<[i64; 3], RowsError> {
    let (table, cipher) = (layout.table.as_str(), layout.cipher.as_str());
    let statement = format!(
        "SELECT count(t.{plain}) - count(CASE WHEN t.{plain} IS NOT NULL THEN t.{cipher} END),
                count(CASE WHEN t.{plain} IS NOT NULL THEN t.{cipher} END),
                count(CASE WHEN t.{plain} IS NULL THEN t.{cipher} END)
         FROM {table} AS t"
    );
    with_pool!(pool, |pool, failed| {
        let found = sqlx::query(safe(statement)).fetch_one(pool).await;
        let found = found.map_err(failed)?;
        let count = |place: usize| found.try_get::<i64, _>(place).map_err(failed);
        Ok([count(0)?, count(1)?, count(2)?])
    })
}
