//! Ages of the versions in use, read from the key store page by page.

use encx::keys::KeyState;
use encx::store::{KeyQuery, KeyRecord, KeyStore, StoreError, Timestamp};

use super::data::{AgeBucket, AgeFacts};

const PAGE: u32 = 1000;

const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Age groups, each with the number of days at which the next one begins.
const AGES: [(&str, u64); 5] = [
    ("< 30 days", 30),
    ("30–90 days", 90),
    ("90–180 days", 180),
    ("180–365 days", 365),
    ("> 1 year", u64::MAX),
];

/// Maximums in NIST SP 800-57 part 1, table 1: how long a symmetric data-encryption key encrypts, and how much
/// longer it decrypts.
const MAX_ENCRYPTING_DAYS: u64 = 2 * 365;
const MAX_DECRYPTING_DAYS: u64 = 3 * 365;

/// Reads all versions that are not destroyed. Memory holds one page.
///
/// # Cancellation
///
/// May be dropped at any time.
pub(super) async fn ages(store: &dyn KeyStore, now: Timestamp) -> Result<AgeFacts, StoreError> {
    let mut ages = AgeFacts {
        active: AGES
            .map(|(age, _)| AgeBucket { age, versions: 0 })
            .into_iter()
            .collect(),
        oldest_active_days: None,
        active_over_2_years: 0,
        deactivated_over_3_years: 0,
        without_wraps: 0,
    };
    let states = KeyState::ALL
        .into_iter()
        .filter(|state| *state != KeyState::Destroyed);
    let mut query = states.fold(KeyQuery::new(PAGE), KeyQuery::state);
    loop {
        let page = store.page(&query).await?;
        for record in &page.records {
            add(&mut ages, record, now);
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(ages),
        }
    }
}

fn add(ages: &mut AgeFacts, record: &KeyRecord, now: Timestamp) {
    if record.wraps.is_empty() {
        ages.without_wraps += 1;
    }
    match record.state {
        KeyState::Active => {
            let days = days_since(record.activated_at.unwrap_or(record.created_at), now);
            let place = AGES.iter().position(|(_, below)| days < *below);
            if let Some(bucket) = ages.active.get_mut(place.unwrap_or(AGES.len() - 1)) {
                bucket.versions += 1;
            }
            ages.oldest_active_days = ages.oldest_active_days.max(Some(days));
            ages.active_over_2_years += u64::from(days > MAX_ENCRYPTING_DAYS);
        }
        KeyState::Deactivated => {
            let days = record.deactivated_at.map(|at| days_since(at, now));
            let is_over = days.is_some_and(|days| days > MAX_DECRYPTING_DAYS);
            ages.deactivated_over_3_years += u64::from(is_over);
        }
        _ => {}
    }
}

/// Returns whole days; 0 for a time in the future.
fn days_since(at: Timestamp, now: Timestamp) -> u64 {
    let micros = now.as_micros().saturating_sub(at.as_micros());
    u64::try_from(micros / DAY).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_never_negative() {
        let at = |micros| Timestamp::from_micros(micros);
        assert_eq!(days_since(at(0), at(DAY - 1)), 0);
        assert_eq!(days_since(at(0), at(DAY)), 1);
        assert_eq!(days_since(at(DAY), at(0)), 0);
        assert_eq!(days_since(at(i64::MIN), at(i64::MAX)), 106_751_991);
    }
}
