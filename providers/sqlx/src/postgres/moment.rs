//! Timestamps as PostgreSQL stores them: microseconds since 2000, exactly.

use encx_core::store::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};

/// A `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

const TIMESTAMPTZ: Oid = Oid(1184);

/// 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// The first and the last finite timestamp of PostgreSQL, in microseconds since 2000.
const FIRST: i64 = -211_813_488_000_000_000;
const LAST: i64 = 9_223_371_331_199_999_999;

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = match self.0.as_micros().saturating_sub(EPOCH) {
            ..FIRST => i64::MIN,
            micros @ FIRST..=LAST => micros,
            _ => i64::MAX,
        };
        <i64 as Encode<'_, Postgres>>::encode_by_ref(&micros, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let micros = <i64 as Decode<'r, Postgres>>::decode(value)?;
                Ok(Self(Timestamp::from_micros(micros.saturating_add(EPOCH))))
            }
            PgValueFormat::Text => Err("a timestamp came as text".into()),
        }
    }
}
