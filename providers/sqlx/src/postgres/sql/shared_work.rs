//! The statements of leases, jobs, the process registry and daily counts.
//!
//! `statement_timestamp()` where another holder's claim must have ended: it is from before any wait, so a claim is
//! never taken too early. `clock_timestamp()` where a new claim's term starts, after the wait.

use crate::shared_work::Statements;

pub(in super::super) const STATEMENTS: Statements = Statements {
    acquire_lease: "
        INSERT INTO encx.leases AS l (name, holder, since, until, term)
        VALUES ($1, $2, statement_timestamp(), statement_timestamp() + $3 * interval '1 microsecond', 1)
        ON CONFLICT (name) DO UPDATE
        SET holder = excluded.holder, since = excluded.since, until = excluded.until,
            term = l.term + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END
        WHERE l.holder = excluded.holder OR l.until <= excluded.since
        RETURNING since, until, term",
    release_lease: "UPDATE encx.leases SET until = since WHERE name = $1 AND holder = $2",
    begin_job: "
        INSERT INTO encx.jobs AS j (name, run, plan, at_end, finished, ranges, open_ranges, changed, unchanged, failed)
        VALUES ($1, 1, $2, false, false, 0, 0, 0, 0, 0)
        ON CONFLICT (name) DO UPDATE
        SET run = j.run + 1, plan = excluded.plan, frontier = NULL, at_end = false, finished = false,
            ranges = 0, open_ranges = 0, changed = 0, unchanged = 0, failed = 0, completed_at = NULL
        WHERE j.finished OR j.plan <> excluded.plan
        RETURNING run",
    delete_old_ranges: "DELETE FROM encx.job_ranges WHERE job = $1 AND run < $2",
    delete_old_faults: "DELETE FROM encx.job_faults WHERE job = $1 AND run < $2",
    job: "
        SELECT run, plan, frontier, at_end, finished, changed, unchanged, failed, completed_at,
               (SELECT json_agg(json_build_array(f.kind, f.items, f.examples) ORDER BY f.kind)::text
                FROM encx.job_faults f WHERE f.job = j.name AND f.run = j.run) AS faults
        FROM encx.jobs j WHERE name = $1",
    // Skips ranges that others are claiming or renewing at the moment.
    claim_range: "
        UPDATE encx.job_ranges SET holder = $3, until = clock_timestamp() + $4 * interval '1 microsecond'
        WHERE job = $1 AND run = $2 AND number = (
            SELECT number FROM encx.job_ranges
            WHERE job = $1 AND run = $2 AND until <= statement_timestamp()
            ORDER BY until, number LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING number, after, upto",
    move_frontier: "
        UPDATE encx.jobs
        SET frontier = coalesce($4, frontier), at_end = $4 IS NULL,
            ranges = ranges + 1, open_ranges = open_ranges + 1
        WHERE name = $1 AND run = $2 AND NOT at_end AND frontier IS NOT DISTINCT FROM $3
        RETURNING ranges AS number",
    insert_range: "
        INSERT INTO encx.job_ranges (job, run, number, after, upto, holder, until)
        VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 microsecond')",
    keep_range: "
        UPDATE encx.job_ranges SET until = clock_timestamp() + $5 * interval '1 microsecond'
        WHERE job = $1 AND run = $2 AND number = $3 AND holder = $4",
    count_range: "
        UPDATE encx.jobs
        SET changed = changed + least($3, 9223372036854775807 - changed),
            unchanged = unchanged + least($4, 9223372036854775807 - unchanged),
            failed = failed + least($5, 9223372036854775807 - failed),
            open_ranges = open_ranges - 1, finished = at_end AND open_ranges = 1, completed_at = clock_timestamp()
        WHERE name = $1 AND run = $2 AND open_ranges > 0",
    delete_range: "
        DELETE FROM encx.job_ranges WHERE job = $1 AND run = $2 AND number = $3 AND holder = $4",
    set_faults: "
        INSERT INTO encx.job_faults (job, run, kind, items, examples)
        SELECT $1, $2, n ->> 0, (n ->> 1)::bigint, (n -> 2)::jsonb FROM json_array_elements($3::json) AS n
        ON CONFLICT (job, run, kind) DO UPDATE SET items = excluded.items, examples = excluded.examples",
    heartbeat: "
        UPDATE encx.processes
        SET name = $2, serves_for = $3, version = $4, seen_at = greatest(seen_at, statement_timestamp())
        WHERE id = $1
        RETURNING coalesce((SELECT number FROM encx.fences), 0) AS fence",
    register: "
        INSERT INTO encx.processes (id, name, serves_for, version, started_at, seen_at, acknowledged)
        VALUES ($1, $2, $3, $4, statement_timestamp(), statement_timestamp(), 0)
        ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
        RETURNING coalesce((SELECT number FROM encx.fences), 0) AS fence",
    // Skips those that others are removing at the moment.
    forget: "
        DELETE FROM encx.processes WHERE id IN (
            SELECT id FROM encx.processes
            WHERE seen_at < statement_timestamp() - interval '1 hour' - serves_for * interval '1 microsecond'
            FOR UPDATE SKIP LOCKED)",
    acknowledge: "
        UPDATE encx.processes SET acknowledged = greatest(acknowledged, $2)
        WHERE id = $1 AND $2 <= (SELECT number FROM encx.fences)",
    deregister: "DELETE FROM encx.processes WHERE id = $1",
    // Listeners are notified when it commits.
    raise_fence: "
        WITH raised AS (
            INSERT INTO encx.fences AS f (id, number) VALUES (true, 1)
            ON CONFLICT (id) DO UPDATE SET number = f.number + 1
            RETURNING number)
        SELECT number, pg_notify('encx_keys', 'fence:' || number) FROM raised",
    processes: "
        SELECT n.now, p.id, p.name, p.serves_for, p.version, p.started_at, p.seen_at, p.acknowledged
        FROM (SELECT statement_timestamp() AS now) n
        LEFT JOIN encx.processes p
            ON p.seen_at >= n.now - interval '1 hour' - p.serves_for * interval '1 microsecond'
        ORDER BY p.id",
    // In the order of names, in which all processes lock these rows.
    add_counts: "
        INSERT INTO encx.daily_counts AS c (day, what, count)
        SELECT (statement_timestamp() AT TIME ZONE 'UTC')::date, n.what, n.count::bigint
        FROM json_each_text($1::json) AS n (what, count)
        ORDER BY n.what
        ON CONFLICT (day, what) DO UPDATE
        SET count = c.count + least(excluded.count, 9223372036854775807 - c.count)",
    delete_old_counts: "
        DELETE FROM encx.daily_counts WHERE day <= (statement_timestamp() AT TIME ZONE 'UTC')::date - $1::integer",
    // A day may be `infinity`, which has no number.
    daily_counts: "
        SELECT c.day - date '1970-01-01' AS day, c.what, c.count FROM encx.daily_counts c
        WHERE c.day > (statement_timestamp() AT TIME ZONE 'UTC')::date - $2::integer
            AND c.day < date 'infinity'
            AND CASE WHEN isfinite(c.day) THEN c.day - date '1970-01-01' END >= $1
        ORDER BY c.day, c.what",
};
