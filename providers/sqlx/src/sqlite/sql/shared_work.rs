//! The statements of leases, jobs, the process registry and daily counts. Each runs in a transaction that holds the
//! write lock.

/// ?1 name, ?2 holder, ?3 now, ?4 end. No row if another holds it.
pub(in super::super) const ACQUIRE_LEASE: &str = "
    INSERT INTO encx_leases AS l (name, holder, since, until, term) VALUES (?1, ?2, ?3, ?4, 1)
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, since = excluded.since, until = excluded.until,
        term = l.term + (l.holder <> excluded.holder)
    WHERE l.holder = excluded.holder OR l.until <= excluded.since
    RETURNING since, until, term";

/// ?1 name, ?2 holder.
pub(in super::super) const RELEASE_LEASE: &str =
    "UPDATE encx_leases SET until = since WHERE name = ?1 AND holder = ?2";

/// ?1 name, ?2 plan. No row if an existing job was joined.
pub(in super::super) const BEGIN_JOB: &str = "
    INSERT INTO encx_jobs AS j (name, run, plan, at_end, finished, ranges, open_ranges, changed, unchanged, failed)
    VALUES (?1, 1, ?2, 0, 0, 0, 0, 0, 0, 0)
    ON CONFLICT (name) DO UPDATE
    SET run = j.run + 1, plan = excluded.plan, frontier = NULL, at_end = 0, finished = 0,
        ranges = 0, open_ranges = 0, changed = 0, unchanged = 0, failed = 0, completed_at = NULL
    WHERE j.finished OR j.plan <> excluded.plan
    RETURNING run";

/// ?1 name, ?2 the new run.
pub(in super::super) const DELETE_OLD_RANGES: &str =
    "DELETE FROM encx_job_ranges WHERE job = ?1 AND run < ?2";

/// Like [`DELETE_OLD_RANGES`].
pub(in super::super) const DELETE_OLD_FAULTS: &str =
    "DELETE FROM encx_job_faults WHERE job = ?1 AND run < ?2";

/// ?1 name.
pub(in super::super) const JOB: &str = "
    SELECT run, plan, frontier, at_end, finished, changed, unchanged, failed, completed_at,
           (SELECT json_group_array(json_array(f.kind, f.items, json(f.examples)))
            FROM encx_job_faults f WHERE f.job = j.name AND f.run = j.run) AS faults
    FROM encx_jobs j WHERE name = ?1";

/// ?1 job, ?2 run, ?3 holder, ?4 now, ?5 end.
pub(in super::super) const CLAIM_RANGE: &str = "
    UPDATE encx_job_ranges SET holder = ?3, until = ?5
    WHERE job = ?1 AND run = ?2 AND number = (
        SELECT number FROM encx_job_ranges
        WHERE job = ?1 AND run = ?2 AND until <= ?4
        ORDER BY until, number LIMIT 1)
    RETURNING number, after, upto";

/// ?1 job, ?2 run, ?3 after, ?4 up to. No row if the frontier is elsewhere.
pub(in super::super) const MOVE_FRONTIER: &str = "
    UPDATE encx_jobs
    SET frontier = coalesce(?4, frontier), at_end = ?4 IS NULL, ranges = ranges + 1, open_ranges = open_ranges + 1
    WHERE name = ?1 AND run = ?2 AND NOT at_end AND frontier IS ?3
    RETURNING ranges AS number";

/// ?1 job, ?2 run, ?3 number, ?4 after, ?5 up to, ?6 holder, ?7 end.
pub(in super::super) const INSERT_RANGE: &str = "
    INSERT INTO encx_job_ranges (job, run, number, after, upto, holder, until)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// ?1 job, ?2 run, ?3 number, ?4 holder, ?5 end.
pub(in super::super) const KEEP_RANGE: &str = "
    UPDATE encx_job_ranges SET until = ?5 WHERE job = ?1 AND run = ?2 AND number = ?3 AND holder = ?4";

/// ?1 job, ?2 run, ?3 changed, ?4 unchanged, ?5 failed, ?6 now.
pub(in super::super) const COUNT_RANGE: &str = "
    UPDATE encx_jobs
    SET changed = changed + min(?3, 9223372036854775807 - changed),
        unchanged = unchanged + min(?4, 9223372036854775807 - unchanged),
        failed = failed + min(?5, 9223372036854775807 - failed),
        open_ranges = open_ranges - 1, finished = at_end AND open_ranges = 1, completed_at = ?6
    WHERE name = ?1 AND run = ?2 AND open_ranges > 0";

/// ?1 job, ?2 run, ?3 number, ?4 holder.
pub(in super::super) const DELETE_RANGE: &str = "
    DELETE FROM encx_job_ranges WHERE job = ?1 AND run = ?2 AND number = ?3 AND holder = ?4";

/// ?1 job, ?2 run, ?3 kind, ?4 the number of items, ?5 the first ones as JSON.
pub(in super::super) const SET_FAULT: &str = "
    INSERT INTO encx_job_faults (job, run, kind, items, examples) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (job, run, kind) DO UPDATE SET items = excluded.items, examples = excluded.examples";

/// ?1 id, ?2 name, ?3 how long it serves keys, in microseconds, ?4 now.
pub(in super::super) const HEARTBEAT: &str = "
    INSERT INTO encx_processes AS p (id, name, serves_for, started_at, seen_at, acknowledged, version)
    VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5)
    ON CONFLICT (id) DO UPDATE
    SET name = excluded.name, serves_for = excluded.serves_for, version = excluded.version,
        seen_at = max(p.seen_at, excluded.seen_at)";

pub(in super::super) const FENCE: &str = "SELECT coalesce((SELECT number FROM encx_fences), 0)";

/// Removes processes that have been silent for an hour longer than they could serve a key. ?1 now.
pub(in super::super) const FORGET: &str =
    "DELETE FROM encx_processes WHERE seen_at < ?1 - 3600000000 - serves_for";

/// A fence that was never raised cannot be acknowledged. ?1 id, ?2 fence.
pub(in super::super) const ACKNOWLEDGE: &str = "
    UPDATE encx_processes SET acknowledged = max(acknowledged, ?2)
    WHERE id = ?1 AND ?2 <= (SELECT number FROM encx_fences WHERE id = 1)";

/// ?1 id.
pub(in super::super) const DEREGISTER: &str = "DELETE FROM encx_processes WHERE id = ?1";

pub(in super::super) const RAISE_FENCE: &str = "
    INSERT INTO encx_fences AS f (id, number) VALUES (1, 1)
    ON CONFLICT (id) DO UPDATE SET number = f.number + 1
    RETURNING number";

/// ?1 now.
pub(in super::super) const PROCESSES: &str = "
    SELECT id, name, serves_for, version, started_at, seen_at, acknowledged FROM encx_processes
    WHERE seen_at >= ?1 - 3600000000 - serves_for
    ORDER BY id";

/// ?1 the day, ?2 the counter's name, ?3 the count.
pub(in super::super) const ADD_COUNT: &str = "
    INSERT INTO encx_daily_counts AS c (day, what, count) VALUES (?1, ?2, ?3)
    ON CONFLICT (day, what) DO UPDATE
    SET count = c.count + min(excluded.count, 9223372036854775807 - c.count)";

/// ?1 the last day not kept.
pub(in super::super) const DELETE_OLD_COUNTS: &str = "DELETE FROM encx_daily_counts WHERE day <= ?1";

/// ?1 the first day.
pub(in super::super) const DAILY_COUNTS: &str =
    "SELECT day, what, count FROM encx_daily_counts WHERE day >= ?1 ORDER BY day, what";
