//! Dates and times of `time`.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::moment;
use super::{CodecError, Encoded, FieldCodec};

/// Keeps the moment but not its offset: it reads back in UTC.
impl FieldCodec for OffsetDateTime {
    const FORMAT: &'static str = moment::MOMENT;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        let utc = self
            .checked_to_offset(UtcOffset::UTC)
            .ok_or(CodecError::OutOfRange {
                format: moment::MOMENT,
                what: "in UTC, its year is not between 0 and 9999",
            })?;
        moment::encode_moment((date(utc.date()), time(utc.time())))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        local(moment::decode_moment(bytes)?, moment::MOMENT).map(PrimitiveDateTime::assume_utc)
    }
}

impl FieldCodec for PrimitiveDateTime {
    const FORMAT: &'static str = moment::LOCAL;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_local((date(self.date()), time(self.time())))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        local(moment::decode_local(bytes)?, moment::LOCAL)
    }
}

impl FieldCodec for Date {
    const FORMAT: &'static str = moment::DATE;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_date(date(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        calendar(moment::decode_date(bytes)?, moment::DATE)
    }
}

impl FieldCodec for Time {
    const FORMAT: &'static str = moment::TIME;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_time(time(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        clock(moment::decode_time(bytes)?, moment::TIME)
    }
}

fn date(date: Date) -> moment::Date {
    moment::Date {
        year: date.year(),
        month: date.month().into(),
        day: date.day(),
    }
}

fn time(time: Time) -> moment::Time {
    let (hour, minute, second, nanos) = time.as_hms_nano();
    moment::Time {
        hour,
        minute,
        second,
        nanos,
    }
}

fn local(
    (date, time): (moment::Date, moment::Time),
    format: &'static str,
) -> Result<PrimitiveDateTime, CodecError> {
    Ok(PrimitiveDateTime::new(
        calendar(date, format)?,
        clock(time, format)?,
    ))
}

fn calendar(date: moment::Date, format: &'static str) -> Result<Date, CodecError> {
    Month::try_from(date.month)
        .and_then(|month| Date::from_calendar_date(date.year, month, date.day))
        .map_err(|_| CodecError::Malformed { format })
}

fn clock(time: moment::Time, format: &'static str) -> Result<Time, CodecError> {
    let moment::Time {
        hour,
        minute,
        second,
        nanos,
    } = time;
    Time::from_hms_nano(hour, minute, second, nanos).map_err(|_| CodecError::Malformed { format })
}
