//! Dates and times as RFC 3339 text: the code that `chrono` and `time` share.

use super::{CodecError, Encoded};

/// A date of the Gregorian calendar.
#[derive(Clone, Copy)]
pub(super) struct Date {
    pub(super) year: i32,
    pub(super) month: u8,
    pub(super) day: u8,
}

/// A time of day.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) nanos: u32,
}

pub(super) const DATE: &str = "date";
pub(super) const TIME: &str = "time of day";
pub(super) const LOCAL: &str = "local date and time";
pub(super) const MOMENT: &str = "moment";

const TEMPLATE: &[u8] = b"0000-00-00T00:00:00.000000000Z";
const DATE_LEN: usize = 10;
const LOCAL_LEN: usize = 29;

impl Date {
    fn text(self, format: &'static str) -> Result<String, CodecError> {
        let Self { year, month, day } = self;
        if !(0..=9999).contains(&year) {
            let what = "its year is not between 0 and 9999";
            return Err(CodecError::OutOfRange { format, what });
        }
        Ok(format!("{year:04}-{month:02}-{day:02}"))
    }
}

impl Time {
    fn text(self, format: &'static str) -> Result<String, CodecError> {
        let Self {
            hour,
            minute,
            second,
            nanos,
        } = self;
        if nanos >= 1_000_000_000 {
            let what = "it is within a leap second";
            return Err(CodecError::OutOfRange { format, what });
        }
        Ok(format!("{hour:02}:{minute:02}:{second:02}.{nanos:09}"))
    }
}

pub(super) fn encode_date(date: Date) -> Result<Encoded<'static>, CodecError> {
    Ok(Encoded::owned(date.text(DATE)?.into_bytes()))
}

pub(super) fn encode_time(time: Time) -> Result<Encoded<'static>, CodecError> {
    Ok(Encoded::owned(time.text(TIME)?.into_bytes()))
}

pub(super) fn encode_local((date, time): (Date, Time)) -> Result<Encoded<'static>, CodecError> {
    let text = format!("{}T{}", date.text(LOCAL)?, time.text(LOCAL)?);
    Ok(Encoded::owned(text.into_bytes()))
}

pub(super) fn encode_moment((date, time): (Date, Time)) -> Result<Encoded<'static>, CodecError> {
    let text = format!("{}T{}Z", date.text(MOMENT)?, time.text(MOMENT)?);
    Ok(Encoded::owned(text.into_bytes()))
}

pub(super) fn decode_date(bytes: &[u8]) -> Result<Date, CodecError> {
    check(bytes, &TEMPLATE[..DATE_LEN], DATE)?;
    Ok(date(bytes))
}

pub(super) fn decode_time(bytes: &[u8]) -> Result<Time, CodecError> {
    check(bytes, &TEMPLATE[DATE_LEN + 1..LOCAL_LEN], TIME)?;
    Ok(time(bytes))
}

pub(super) fn decode_local(bytes: &[u8]) -> Result<(Date, Time), CodecError> {
    check(bytes, &TEMPLATE[..LOCAL_LEN], LOCAL)?;
    Ok((date(bytes), time(&bytes[DATE_LEN + 1..])))
}

pub(super) fn decode_moment(bytes: &[u8]) -> Result<(Date, Time), CodecError> {
    check(bytes, TEMPLATE, MOMENT)?;
    Ok((date(bytes), time(&bytes[DATE_LEN + 1..])))
}

/// Requires a digit where the template has one, and the template's own character elsewhere.
fn check(bytes: &[u8], template: &[u8], format: &'static str) -> Result<(), CodecError> {
    if bytes.len() != template.len() {
        return Err(CodecError::Length {
            format,
            found: bytes.len(),
            expected: template.len(),
        });
    }
    let fits = |(byte, expected): (&u8, &u8)| match expected {
        b'0' => byte.is_ascii_digit(),
        _ => byte == expected,
    };
    if bytes.iter().zip(template).all(fits) {
        Ok(())
    } else {
        Err(CodecError::Malformed { format })
    }
}

fn date(bytes: &[u8]) -> Date {
    Date {
        year: i32::from(two(&bytes[0..])) * 100 + i32::from(two(&bytes[2..])),
        month: two(&bytes[5..]),
        day: two(&bytes[8..]),
    }
}

fn time(bytes: &[u8]) -> Time {
    let nanos = &bytes[9..18];
    Time {
        hour: two(&bytes[0..]),
        minute: two(&bytes[3..]),
        second: two(&bytes[6..]),
        nanos: nanos
            .iter()
            .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0')),
    }
}

fn two(digits: &[u8]) -> u8 {
    (digits[0] - b'0') * 10 + (digits[1] - b'0')
}
