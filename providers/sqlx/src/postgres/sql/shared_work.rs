//! The statements of leases, jobs, the process registry and daily counts.
//!
//! `statement_timestamp()` where another holder's claim must have ended: it is from before any wait, so a claim is
//! never taken too early. `clock_timestamp()` where a new claim's term starts, after the wait.

/// $1 name, $2 holder, $3 term in microseconds. No row if another holds it.
pub(in super::super) const ACQUIRE_LEASE: &str = "
    INSERT INTO encx.leases AS l (name, holder, since, until, term)
    VALUES ($1, $2, statement_timestamp(), statement_timestamp() + $3 * interval '1 microsecond', 1)
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, since = excluded.since, until = excluded.until,
        term = l.term + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END
    WHERE l.holder = excluded.holder OR l.until <= excluded.since
    RETURNING since, until, term";

/// $1 name, $2 holder.
pub(in super::super) const RELEASE_LEASE: &str =
    "UPDATE encx.leases SET until = since WHERE name = $1 AND holder = $2";

/// $1 name, $2 plan. No row if an existing job was joined.
pub(in super::super) const BEGIN_JOB: &str = "
    INSERT INTO encx.jobs AS j (name, run, plan, at_end, finished, ranges, open_ranges, changed, unchanged, failed)
    VALUES ($1, 1, $2, false, false, 0, 0, 0, 0, 0)
    ON CONFLICT (name) DO UPDATE
    SET run = j.run + 1, plan = excluded.plan, frontier = NULL, at_end = false, finished = false,
        ranges = 0, open_ranges = 0, changed = 0, unchanged = 0, failed = 0, completed_at = NULL
    WHERE j.finished OR j.plan <> excluded.plan
    RETURNING run";

/// $1 name, $2 the new run.
pub(in super::super) const DELETE_OLD_RANGES: &str =
    "DELETE FROM encx.job_ranges WHERE job = $1 AND run < $2";

/// Like [`DELETE_OLD_RANGES`].
pub(in super::super) const DELETE_OLD_FAULTS: &str =
    "DELETE FROM encx.job_faults WHERE job = $1 AND run < $2";

/// $1 name.
pub(in super::super) const JOB: &str = "
    SELECT run, plan, frontier, at_end, finished, changed, unchanged, failed, completed_at,
           (SELECT json_agg(json_build_array(f.kind, f.items, f.examples) ORDER BY f.kind)::text
            FROM encx.job_faults f WHERE f.job = j.name AND f.run = j.run) AS faults
    FROM encx.jobs j WHERE name = $1";

/// Skips ranges that others are claiming or renewing at the moment. $1 job, $2 run, $3 holder, $4 term in microseconds.
pub(in super::super) const CLAIM_RANGE: &str = "
    UPDATE encx.job_ranges SET holder = $3, until = clock_timestamp() + $4 * interval '1 microsecond'
    WHERE job = $1 AND run = $2 AND number = (
        SELECT number FROM encx.job_ranges
        WHERE job = $1 AND run = $2 AND until <= statement_timestamp()
        ORDER BY until, number LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING number, after, upto";

/// Only one of several racing workers moves the frontier; the others then find it moved.
///
/// $1 job, $2 run, $3 after, $4 up to, $5 holder, $6 term in microseconds.
pub(in super::super) const EXTEND_JOB: &str = "
    WITH moved AS (
        UPDATE encx.jobs
        SET frontier = coalesce($4::bytea, frontier), at_end = $4::bytea IS NULL,
            ranges = ranges + 1, open_ranges = open_ranges + 1
        WHERE name = $1 AND run = $2 AND NOT at_end AND frontier IS NOT DISTINCT FROM $3::bytea
        RETURNING ranges)
    INSERT INTO encx.job_ranges (job, run, number, after, upto, holder, until)
    SELECT $1, $2, moved.ranges, $3::bytea, $4::bytea, $5, clock_timestamp() + $6 * interval '1 microsecond'
    FROM moved
    RETURNING number";

/// $1 job, $2 run, $3 number, $4 holder, $5 term in microseconds.
pub(in super::super) const KEEP_RANGE: &str = "
    UPDATE encx.job_ranges SET until = clock_timestamp() + $5 * interval '1 microsecond'
    WHERE job = $1 AND run = $2 AND number = $3 AND holder = $4";

/// Counts a range before deleting it, in the same transaction; starting the job again locks in the same order. The
/// count tells which range is the last. Looking at the ranges would not: two concurrent transactions do not see each
/// other's deletions.
///
/// $1 job, $2 run, $3 changed, $4 unchanged, $5 failed.
pub(in super::super) const COUNT_RANGE: &str = "
    UPDATE encx.jobs
    SET changed = changed + least($3, 9223372036854775807 - changed),
        unchanged = unchanged + least($4, 9223372036854775807 - unchanged),
        failed = failed + least($5, 9223372036854775807 - failed),
        open_ranges = open_ranges - 1, finished = at_end AND open_ranges = 1, completed_at = clock_timestamp()
    WHERE name = $1 AND run = $2 AND open_ranges > 0";

/// $1 job, $2 run, $3 number, $4 holder.
pub(in super::super) const DELETE_RANGE: &str = "
    DELETE FROM encx.job_ranges WHERE job = $1 AND run = $2 AND number = $3 AND holder = $4";

/// $1 job, $2 run, $3 kinds, without duplicates, $4 the number of items of each, $5 the first of each as JSON.
pub(in super::super) const SET_FAULTS: &str = "
    INSERT INTO encx.job_faults (job, run, kind, items, examples)
    SELECT $1, $2, n.kind, n.items, n.examples::jsonb
    FROM unnest($3::text[], $4::bigint[], $5::text[]) AS n (kind, items, examples)
    ON CONFLICT (job, run, kind) DO UPDATE SET items = excluded.items, examples = excluded.examples";

/// $1 id, $2 name, $3 how long it serves keys, in microseconds. No row if it is not registered.
pub(in super::super) const HEARTBEAT: &str = "
    UPDATE encx.processes
    SET name = $2, serves_for = $3, version = $4, seen_at = greatest(seen_at, statement_timestamp())
    WHERE id = $1
    RETURNING coalesce((SELECT number FROM encx.fences), 0) AS fence";

/// Like [`HEARTBEAT`].
pub(in super::super) const REGISTER: &str = "
    INSERT INTO encx.processes (id, name, serves_for, version, started_at, seen_at, acknowledged)
    VALUES ($1, $2, $3, $4, statement_timestamp(), statement_timestamp(), 0)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
    RETURNING coalesce((SELECT number FROM encx.fences), 0) AS fence";

/// Removes processes that have been silent for an hour longer than they could serve a key. Skips those that others are
/// removing at the moment.
pub(in super::super) const FORGET: &str = "
    DELETE FROM encx.processes WHERE id IN (
        SELECT id FROM encx.processes
        WHERE seen_at < statement_timestamp() - interval '1 hour' - serves_for * interval '1 microsecond'
        FOR UPDATE SKIP LOCKED)";

/// A fence that was never raised cannot be acknowledged. $1 id, $2 fence.
pub(in super::super) const ACKNOWLEDGE: &str = "
    UPDATE encx.processes SET acknowledged = greatest(acknowledged, $2)
    WHERE id = $1 AND $2 <= (SELECT number FROM encx.fences)";

pub(in super::super) const DEREGISTER: &str = "DELETE FROM encx.processes WHERE id = $1";

/// Listeners are notified when it commits.
pub(in super::super) const RAISE_FENCE: &str = "
    WITH raised AS (
        INSERT INTO encx.fences AS f (id, number) VALUES (true, 1)
        ON CONFLICT (id) DO UPDATE SET number = f.number + 1
        RETURNING number)
    SELECT number, pg_notify('encx_keys', 'fence:' || number) FROM raised";

/// There is a row even without processes: it contains the time.
pub(in super::super) const PROCESSES: &str = "
    SELECT n.now, p.id, p.name, p.serves_for, p.version, p.started_at, p.seen_at, p.acknowledged
    FROM (SELECT statement_timestamp() AS now) n
    LEFT JOIN encx.processes p
        ON p.seen_at >= n.now - interval '1 hour' - p.serves_for * interval '1 microsecond'
    ORDER BY p.id";

/// In the order of names, in which all processes lock these rows. $1 names, without duplicates, $2 counts.
pub(in super::super) const ADD_COUNTS: &str = "
    INSERT INTO encx.daily_counts AS c (day, what, count)
    SELECT (statement_timestamp() AT TIME ZONE 'UTC')::date, n.what, n.count
    FROM unnest($1::text[], $2::bigint[]) AS n (what, count)
    ORDER BY n.what
    ON CONFLICT (day, what) DO UPDATE
    SET count = c.count + least(excluded.count, 9223372036854775807 - c.count)";

/// $1 the number of days kept.
pub(in super::super) const DELETE_OLD_COUNTS: &str = "
    DELETE FROM encx.daily_counts WHERE day <= (statement_timestamp() AT TIME ZONE 'UTC')::date - $1::integer";

/// $1 the first day, as days since 1970, $2 the number of days kept. A day may be `infinity`, which has no number.
pub(in super::super) const DAILY_COUNTS: &str = "
    SELECT c.day - date '1970-01-01' AS day, c.what, c.count FROM encx.daily_counts c
    WHERE c.day > (statement_timestamp() AT TIME ZONE 'UTC')::date - $2::integer
        AND c.day < date 'infinity'
        AND CASE WHEN isfinite(c.day) THEN c.day - date '1970-01-01' END >= $1
    ORDER BY c.day, c.what";
