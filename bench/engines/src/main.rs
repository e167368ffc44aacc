//! Measures storage libraries as the log under the embedded engine, each beside the bare floor of
//! an append and an fdatasync in the same run. `cargo run --release [DIR]` prints a table; every
//! measurement runs in a process of its own, so that memory and recovery are its own too.

mod engines;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const RECORD: usize = 1024;
const LOAD: u64 = 150_000;

fn record(id: u64) -> Vec<u8> {
    // Not compressible, so that no library shines by compressing the benchmark's zeros.
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..RECORD / 8).flat_map(|_| next().to_le_bytes()).collect()
}

fn records(from: u64, count: u64) -> Vec<(u64, Vec<u8>)> {
    (from..from + count).map(|id| (id, record(id))).collect()
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = args.iter().map(String::as_str).collect();
    match text.as_slice() {
        ["step", step, engine, dir] => self::step(step, engine, Path::new(dir)),
        [] => table(&std::env::temp_dir().join("evenkeel-bench-engines")),
        [dir] => table(Path::new(dir)),
        _ => anyhow::bail!("usage: evenkeel-bench-engines [DIR]"),
    }
}

fn child(step: &str, engine: &str, dir: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["step", step, engine]).arg(dir);
    command
}

fn table(root: &Path) -> Result<()> {
    for engine in engines::ENGINES {
        let dir = root.join(engine);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        println!("== {engine}");
        for step in ["create", "idle", "latency", "load", "open", "churn", "open", "empty", "open"] {
            let done = child(step, engine, &dir.join("main")).output()?;
            print!("{}", String::from_utf8_lossy(&done.stdout));
            if !done.status.success() {
                println!("  {step}: FAILED {}", String::from_utf8_lossy(&done.stderr).trim());
            }
        }
        kills(engine, &dir.join("kill"))?;
        flips(engine, &dir)?;
        torn(engine, &dir)?;
        full(engine, &dir.join("full"))?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn step(step: &str, engine: &str, dir: &Path) -> Result<()> {
    match step {
        "create" => {
            let began = Instant::now();
            let db = engines::open(engine, dir)?;
            println!("  create {:.1} ms, then {} on disk", ms(began.elapsed()), size(dir));
            drop(db);
        }
        "idle" => {
            let before = rss();
            let db = engines::open(engine, dir)?;
            let (threads, switches) = (tasks(), switches());
            std::thread::sleep(Duration::from_secs(3));
            println!(
                "  empty: +{} KiB RSS, {} threads, {} wake-ups in 3 s",
                rss().saturating_sub(before),
                threads,
                self::switches() - switches
            );
            drop(db);
        }
        "latency" => latency(engine, dir)?,
        "load" => {
            let mut db = engines::open(engine, dir)?;
            let (began, cpu) = (Instant::now(), cpu());
            for at in (0..LOAD).step_by(500) {
                db.append(&records(1_000_000 + at, 500), &[])?;
            }
            println!(
                "  load {LOAD} in {:.1} s, {:.1} s CPU, {} on disk",
                began.elapsed().as_secs_f64(),
                self::cpu() - cpu,
                size(dir)
            );
            // As after a kill: nothing is closed.
            std::process::exit(0);
        }
        "open" => {
            let before = rss();
            let began = Instant::now();
            let db = engines::open(engine, dir)?;
            let opened = began.elapsed();
            let (mut count, mut sum) = (0u64, 0u64);
            db.scan(&mut |id, value| {
                count += 1;
                sum = sum.wrapping_add(id ^ value.len() as u64);
            })?;
            println!(
                "  open {:.1} ms, scan {count} in {:.0} ms, +{} KiB RSS, {} on disk",
                ms(opened),
                ms(began.elapsed() - opened),
                rss().saturating_sub(before),
                size(dir)
            );
        }
        "churn" => {
            let mut db = engines::open(engine, dir)?;
            let began = Instant::now();
            for at in (0..LOAD).step_by(250) {
                let drops: Vec<u64> = (at..at + 250).map(|id| 1_000_000 + id).collect();
                db.append(&records(2_000_000 + at, 250), &drops)?;
            }
            let took = began.elapsed();
            println!("  churn in {:.1} s, {} on disk", took.as_secs_f64(), size(dir));
        }
        "empty" => {
            let mut db = engines::open(engine, dir)?;
            for at in (0..LOAD).step_by(1000) {
                let drops: Vec<u64> = (at..at + 1000).map(|id| 2_000_000 + id).collect();
                db.append(&[], &drops)?;
            }
            let dropped = size(dir);
            db.shrink()?;
            println!("  all dropped: {dropped} on disk, asked to shrink: {}", size(dir));
        }
        "write" => {
            // Acknowledges each durable write on standard output until it is killed.
            let mut db = engines::open(engine, dir)?;
            let mut last = 0;
            db.scan(&mut |id, _| last = id)?;
            let mut out = std::io::stdout().lock();
            for id in (last + 1..).step_by(4) {
                db.append(&records(id, 4), &[])?;
                writeln!(out, "{}", id + 3)?;
                out.flush()?;
            }
        }
        "fill" => fill(engine, dir)?,
        _ => anyhow::bail!("no step {step}"),
    }
    Ok(())
}

/// Alternates short runs of the bare floor and of the engine, so that both see the same disk.
fn latency(engine: &str, dir: &Path) -> Result<()> {
    let mut db = engines::open(engine, dir)?;
    let floor = std::fs::File::create(dir.join("floor"))?;
    let (mut bare, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at, mut id) = (0, 1);
    let cpu_before = cpu();
    for _ in 0..30 {
        for _ in 0..50 {
            let value = record(at);
            let began = Instant::now();
            floor.write_all_at(&value, at)?;
            floor.sync_data()?;
            bare.push(began.elapsed());
            at += RECORD as u64;
        }
        for _ in 0..50 {
            let batch = records(id, 1);
            let began = Instant::now();
            db.append(&batch, &[])?;
            one.push(began.elapsed());
            id += 1;
        }
        for _ in 0..20 {
            let batch = records(id, 64);
            let began = Instant::now();
            db.append(&batch, &[])?;
            many.push(began.elapsed());
            id += 64;
        }
    }
    std::fs::remove_file(dir.join("floor"))?;
    for (name, samples, batch) in [("floor", bare, 1), ("x1", one, 1), ("x64", many, 64)] {
        let total: Duration = samples.iter().sum();
        let rate = (samples.len() * batch) as f64 / total.as_secs_f64();
        let mut sorted = samples;
        sorted.sort();
        let at = |q: f64| ms(sorted[((sorted.len() - 1) as f64 * q) as usize]);
        println!(
            "  {name:5} min {:.3} p50 {:.3} p99 {:.2} max {:.1} ms, {rate:.0} writes/s",
            at(0.0), at(0.5), at(0.99), at(1.0)
        );
    }
    println!("  CPU of all three {:.2} s", cpu() - cpu_before);
    Ok(())
}

/// Kills a writer at many moments; every acknowledged write must be there.
fn kills(engine: &str, dir: &Path) -> Result<()> {
    let (mut lost, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..20u64 {
        let mut writer = child("write", engine, dir).stdout(Stdio::piped()).spawn()?;
        let mut acks = BufReader::new(writer.stdout.take().context("piped")?).lines();
        let mut acked = 0;
        for _ in 0..(round * 37) % 200 + 1 {
            let Some(line) = acks.next() else { break };
            acked = line?.parse()?;
        }
        std::thread::sleep(Duration::from_micros(round * 131 % 900));
        writer.kill()?;
        for line in acks {
            acked = line?.parse().unwrap_or(acked);
        }
        writer.wait()?;
        let began = Instant::now();
        match engines::open(engine, dir) {
            Ok(db) => {
                slowest = slowest.max(began.elapsed());
                let mut expected = 1;
                let mut last = 0;
                db.scan(&mut |id, value| {
                    lost += u64::from(id != expected || value != record(id));
                    expected = id + 1;
                    last = id;
                })?;
                lost += u64::from(last < acked);
            }
            Err(error) => {
                failed += 1;
                println!("  kill: {error:#}");
            }
        }
    }
    println!("  20 kills: {lost} wrong, {failed} not opened, slowest open {:.1} ms", ms(slowest));
    Ok(())
}

/// Flips one byte in many places of a closed store: is it noticed?
fn flips(engine: &str, dir: &Path) -> Result<()> {
    let (mut refused, mut noticed, mut silent, mut harmless, mut crashed) = (0, 0, 0, 0, 0);
    let source = dir.join("kill");
    let mut good = 0u64;
    engines::open(engine, &source)?.scan(&mut |id, _| good = id)?;
    let victim = dir.join("flip");
    for round in 0..61u64 {
        if victim.exists() {
            std::fs::remove_dir_all(&victim)?;
        }
        anyhow::ensure!(Command::new("cp").arg("-r").arg(&source).arg(&victim).status()?.success());
        let mut files = files(&victim);
        files.retain(|(_, used)| *used > 8192);
        files.sort();
        let (file, _) = &files[round as usize % files.len()];
        let data = std::fs::read(file)?;
        let used = data.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        let at = used * (2 * (round % 60) + 1) / 120;
        let handle = std::fs::File::options().write(true).open(file)?;
        // The last round is the control: nothing is flipped.
        let flip = if round < 60 { 0x55 } else { 0 };
        handle.write_all_at(&[data[at as usize] ^ flip], at)?;
        drop(handle);
        let outcome = std::panic::catch_unwind(|| -> Result<bool, u8> {
            let db = engines::open(engine, &victim).map_err(|_| 0u8)?;
            let (mut last, mut right) = (0, true);
            db.scan(&mut |id, value| {
                right &= id == last + 1 && value == record(id);
                last = id;
            })
            .map_err(|_| 1u8)?;
            Ok(right && last == good)
        });
        match outcome {
            Ok(Err(0)) if round == 60 => println!("  control of the flips: REFUSED"),
            Ok(Err(0)) => refused += 1,
            Ok(Err(_)) => noticed += 1,
            Ok(Ok(false)) => silent += 1,
            Ok(Ok(true)) if round == 60 => {}
            Ok(Ok(true)) => harmless += 1,
            Err(_) => crashed += 1,
        }
    }
    println!(
        "  60 flipped bytes: {refused} refused at open, {noticed} at scan, {crashed} panics, \
         {silent} SILENTLY WRONG, {harmless} without effect"
    );
    Ok(())
}

/// Loses the last sectors of the file that was written last, as a power cut may: everything before
/// them must still be there. Only says something about libraries that append to a log.
fn torn(engine: &str, dir: &Path) -> Result<()> {
    let (source, victim) = (dir.join("kill"), dir.join("torn"));
    let (mut refused, mut lost, mut fine) = (0, 0, 0);
    for round in 0..10u64 {
        let mut writer = child("write", engine, &source).stdout(Stdio::piped()).spawn()?;
        let acks = BufReader::new(writer.stdout.take().context("piped")?).lines();
        let acked: u64 = acks.take(20).last().context("acks")??.parse()?;
        writer.kill()?;
        writer.wait()?;
        if victim.exists() {
            std::fs::remove_dir_all(&victim)?;
        }
        anyhow::ensure!(
            Command::new("cp").arg("-rp").arg(&source).arg(&victim).status()?.success()
        );
        let newest = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
        let mut files = files(&victim);
        files.retain(|(_, used)| *used > 8192);
        let (file, _) = files.iter().max_by_key(|(path, _)| newest(path)).context("a file")?;
        let data = std::fs::read(file)?;
        let used = data.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let at = used.saturating_sub(200 + round * 100);
        std::fs::File::options().write(true).open(file)?.write_all_at(&[0; 150], at)?;
        match engines::open(engine, &victim) {
            Err(_) => refused += 1,
            Ok(db) => {
                let mut last = 0;
                let scanned = db.scan(&mut |id, _| last = id);
                // Up to two commits may have been under way after the last acknowledged one.
                match scanned {
                    Ok(()) if last + 4 >= acked => fine += 1,
                    Ok(()) => lost += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    println!("  10 torn tails: {refused} refused, {lost} lost more than the tail, {fine} fine");
    Ok(())
}

/// Fills a small file system, frees some of it and writes on.
fn full(engine: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m", "evenkeel-bench"])
        .arg(dir)
        .status()?
        .success();
    if !mounted {
        println!("  full disk: cannot mount a tmpfs, skipped");
        return Ok(());
    }
    let done = child("fill", engine, dir).output()?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    if !done.status.success() {
        println!("  full disk: FAILED {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    anyhow::ensure!(Command::new("umount").arg(dir).status()?.success());
    Ok(())
}

fn fill(engine: &str, dir: &Path) -> Result<()> {
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1u8; 20 << 20])?;
    let data = dir.join("data");
    let mut db = engines::open(engine, &data)?;
    let mut acked = 0;
    let error = loop {
        match db.append(&records(acked + 1, 16), &[]) {
            Ok(()) => acked += 16,
            Err(error) => break error,
        }
    };
    let mut count = 0;
    let readable = db.scan(&mut |_, _| count += 1);
    let readable = match readable {
        Ok(()) => format!("{count} of {acked} readable"),
        Err(error) => format!("unreadable: {error:#}"),
    };
    println!("  full disk after {acked}: \"{error:#}\", {readable}");
    std::fs::remove_file(&ballast)?;
    let same = db.append(&records(acked + 1, 1), &[]);
    let same = same.map_or_else(|e| format!("fails ({e:#})"), |()| "works".to_owned());
    drop(db);
    let again = engines::open(engine, &data).and_then(|mut db| {
        let mut last = 0;
        db.scan(&mut |id, _| last = id)?;
        anyhow::ensure!(last >= acked, "lost: {last} of {acked}");
        db.append(&records(last + 1, 1), &[])
    });
    let again = again.map_or_else(|e| format!("fails ({e:#})"), |()| "works".to_owned());
    println!("  after space came back: the same handle {same}, opened again {again}");
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.blocks() * 512));
        }
    }
    found
}

fn size(dir: &Path) -> String {
    let bytes: u64 = files(dir).iter().map(|(_, size)| size).sum();
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Anonymous memory: file pages that a map shares with the page cache are not ours.
fn rss() -> u64 {
    status("RssAnon:")
}

fn tasks() -> u64 {
    status("Threads:")
}

fn switches() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
        sum += line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

fn cpu() -> f64 {
    // SAFETY: getrusage fills the struct it is given and has no other effect.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let of = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    of(usage.ru_utime) + of(usage.ru_stime)
}
