//! Reads rows of PostgreSQL.

use encx_core::store::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Column, Row, TypeInfo};
use uuid::Uuid;

use super::moment::Moment;
use crate::columns::StoredRow;

impl StoredRow for PgRow {
    fn boolean(&self, column: &str) -> Result<Option<bool>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }

    fn id(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let id: Option<Uuid> = self.try_get(column)?;
        Ok(id.map(|id| id.as_bytes().to_vec()))
    }

    fn integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        match self.try_column(column)?.type_info().name() {
            "INT2" => Ok(self.try_get::<Option<i16>, _>(column)?.map(i64::from)),
            "INT4" => Ok(self.try_get::<Option<i32>, _>(column)?.map(i64::from)),
            _ => self.try_get(column),
        }
    }

    fn moment(&self, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.try_get::<Option<Moment>, _>(column)?.map(|moment| moment.0))
    }

    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }
}
