//! The statements of leases, jobs, the process registry and daily counts. Those that write run in a transaction that
//! holds the write lock.

use crate::shared_work::Statements;

/// The time, in microseconds. The same wherever it stands in a statement.
macro_rules! now {
    () => {
        "CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)"
    };
}

/// The number of days since 1970.
macro_rules! today {
    () => {
        "unixepoch('now') / 86400"
    };
}

pub(in super::super) const STATEMENTS: Statements = Statements {
    acquire_lease: concat!(
        "INSERT INTO encx_leases AS l (name, holder, since, until, term)
        VALUES (?1, ?2, ", now!(), ", ", now!(), " + ?3, 1)
        ON CONFLICT (name) DO UPDATE
        SET holder = excluded.holder, since = excluded.since, until = excluded.until,
            term = l.term + (l.holder <> excluded.holder)
        WHERE l.holder = excluded.holder OR l.until <= excluded.since
        RETURNING since, until, term"),
    release_lease: "UPDATE encx_leases SET until = since WHERE name = ?1 AND holder = ?2",
    begin_job: "
        INSERT INTO encx_jobs AS j (name, run, plan, at_end, finished, ranges, open_ranges, changed, unchanged, failed)
        VALUES (?1, 1, ?2, 0, 0, 0, 0, 0, 0, 0)
        ON CONFLICT (name) DO UPDATE
        SET run = j.run + 1, plan = excluded.plan, frontier = NULL, at_end = 0, finished = 0,
            ranges = 0, open_ranges = 0, changed = 0, unchanged = 0, failed = 0, completed_at = NULL
        WHERE j.finished OR j.plan <> excluded.plan
        RETURNING run",
    delete_old_ranges: "DELETE FROM encx_job_ranges WHERE job = ?1 AND run < ?2",
    delete_old_faults: "DELETE FROM encx_job_faults WHERE job = ?1 AND run < ?2",
    job: "
        SELECT run, plan, frontier, at_end, finished, changed, unchanged, failed, completed_at,
               (SELECT json_group_array(json_array(f.kind, f.items, json(f.examples)))
                FROM encx_job_faults f WHERE f.job = j.name AND f.run = j.run) AS faults
        FROM encx_jobs j WHERE name = ?1",
    claim_range: concat!(
        "UPDATE encx_job_ranges SET holder = ?3, until = ", now!(), " + ?4
        WHERE job = ?1 AND run = ?2 AND number = (
            SELECT number FROM encx_job_ranges
            WHERE job = ?1 AND run = ?2 AND until <= ", now!(), "
            ORDER BY until, number LIMIT 1)
        RETURNING number, after, upto"),
    move_frontier: "
        UPDATE encx_jobs
        SET frontier = coalesce(?4, frontier), at_end = ?4 IS NULL, ranges = ranges + 1, open_ranges = open_ranges + 1
        WHERE name = ?1 AND run = ?2 AND NOT at_end AND frontier IS ?3
        RETURNING ranges AS number",
    insert_range: concat!(
        "INSERT INTO encx_job_ranges (job, run, number, after, upto, holder, until)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ", now!(), " + ?7)"),
    keep_range: concat!(
        "UPDATE encx_job_ranges SET until = ", now!(), " + ?5
        WHERE job = ?1 AND run = ?2 AND number = ?3 AND holder = ?4"),
    count_range: concat!(
        "UPDATE encx_jobs
        SET changed = changed + min(?3, 9223372036854775807 - changed),
            unchanged = unchanged + min(?4, 9223372036854775807 - unchanged),
            failed = failed + min(?5, 9223372036854775807 - failed),
            open_ranges = open_ranges - 1, finished = at_end AND open_ranges = 1, completed_at = ", now!(), "
        WHERE name = ?1 AND run = ?2 AND open_ranges > 0"),
    delete_range: "
        DELETE FROM encx_job_ranges WHERE job = ?1 AND run = ?2 AND number = ?3 AND holder = ?4",
    set_faults: "
        INSERT INTO encx_job_faults (job, run, kind, items, examples)
        SELECT ?1, ?2, value ->> 0, value ->> 1, value -> 2 FROM json_each(?3) WHERE true
        ON CONFLICT (job, run, kind) DO UPDATE SET items = excluded.items, examples = excluded.examples",
    heartbeat: concat!(
        "UPDATE encx_processes
        SET name = ?2, serves_for = ?3, version = ?4, seen_at = max(seen_at, ", now!(), ")
        WHERE id = ?1
        RETURNING coalesce((SELECT number FROM encx_fences), 0) AS fence"),
    register: concat!(
        "INSERT INTO encx_processes (id, name, serves_for, version, started_at, seen_at, acknowledged)
        VALUES (?1, ?2, ?3, ?4, ", now!(), ", ", now!(), ", 0)
        RETURNING coalesce((SELECT number FROM encx_fences), 0) AS fence"),
    forget: concat!(
        "DELETE FROM encx_processes WHERE seen_at < ", now!(), " - 3600000000 - serves_for"),
    acknowledge: "
        UPDATE encx_processes SET acknowledged = max(acknowledged, ?2)
        WHERE id = ?1 AND ?2 <= (SELECT number FROM encx_fences WHERE id = 1)",
    deregister: "DELETE FROM encx_processes WHERE id = ?1",
    raise_fence: "
        INSERT INTO encx_fences AS f (id, number) VALUES (1, 1)
        ON CONFLICT (id) DO UPDATE SET number = f.number + 1
        RETURNING number",
    processes: concat!(
        "SELECT n.now, p.id, p.name, p.serves_for, p.version, p.started_at, p.seen_at, p.acknowledged
        FROM (SELECT ", now!(), " AS now) n
        LEFT JOIN encx_processes p ON p.seen_at >= n.now - 3600000000 - p.serves_for
        ORDER BY p.id"),
    add_counts: concat!(
        "INSERT INTO encx_daily_counts AS c (day, what, count)
        SELECT ", today!(), ", key, value FROM json_each(?1) WHERE true
        ON CONFLICT (day, what) DO UPDATE
        SET count = c.count + min(excluded.count, 9223372036854775807 - c.count)"),
    delete_old_counts: concat!("DELETE FROM encx_daily_counts WHERE day <= ", today!(), " - ?1"),
    daily_counts: concat!(
        "SELECT day, what, count FROM encx_daily_counts
        WHERE day >= ?1 AND day > ", today!(), " - ?2
        ORDER BY day, what"),
};
