//! Moments as the SDK has them.

use aws_sdk_kms::primitives::DateTime;
use encx_core::store::Timestamp;

pub(crate) fn timestamp(at: &DateTime) -> Timestamp {
    let micros = at.as_nanos() / 1000;
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
