//! Dates and times of `chrono`.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};

use super::moment::{self, Date, Time};
use super::{CodecError, Encoded, FieldCodec};

impl FieldCodec for DateTime<Utc> {
    const FORMAT: &'static str = moment::MOMENT;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_moment(parts(self.naive_utc()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        local(moment::decode_moment(bytes)?, moment::MOMENT).map(|local| local.and_utc())
    }
}

impl FieldCodec for NaiveDateTime {
    const FORMAT: &'static str = moment::LOCAL;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_local(parts(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        local(moment::decode_local(bytes)?, moment::LOCAL)
    }
}

impl FieldCodec for NaiveDate {
    const FORMAT: &'static str = moment::DATE;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_date(date(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        calendar(moment::decode_date(bytes)?, moment::DATE)
    }
}

impl FieldCodec for NaiveTime {
    const FORMAT: &'static str = moment::TIME;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        moment::encode_time(time(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        clock(moment::decode_time(bytes)?, moment::TIME)
    }
}

fn parts(local: NaiveDateTime) -> (Date, Time) {
    (date(local.date()), time(local.time()))
}

#[allow(clippy::cast_possible_truncation, reason = "months and days fit")]
fn date(date: NaiveDate) -> Date {
    Date {
        year: date.year(),
        month: date.month() as u8,
        day: date.day() as u8,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "hours, minutes and seconds fit")]
fn time(time: NaiveTime) -> Time {
    Time {
        hour: time.hour() as u8,
        minute: time.minute() as u8,
        second: time.second() as u8,
        nanos: time.nanosecond(),
    }
}

fn local((date, time): (Date, Time), format: &'static str) -> Result<NaiveDateTime, CodecError> {
    Ok(calendar(date, format)?.and_time(clock(time, format)?))
}

fn calendar(date: Date, format: &'static str) -> Result<NaiveDate, CodecError> {
    NaiveDate::from_ymd_opt(date.year, date.month.into(), date.day.into())
        .ok_or(CodecError::Malformed { format })
}

fn clock(time: Time, format: &'static str) -> Result<NaiveTime, CodecError> {
    let Time {
        hour,
        minute,
        second,
        nanos,
    } = time;
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanos)
        .ok_or(CodecError::Malformed { format })
}
