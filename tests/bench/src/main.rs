//! The `bench` program: see the library's documentation.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bench::machine::{self, Machine};
use bench::options::{Amounts, Options, Picked};
use bench::proxy::{Candidate, Kind, in_turn};
use bench::record::{Record, Sheet};
use bench::report::{self, Report, markers, plot, table};
use bench::rows::{CODES, GROUPS, Links, codes};
use bench::world::World;
use clap::Parser as _;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let picked = options.picked()?;
    let amounts = options.amounts();
    let candidates = candidates(options)?;
    if let Some(file) = &options.write {
        ensure!(file.exists(), "--write: there is no {}", file.display());
    }
    let date = machine::today();
    let machine = Machine::look();
    if let Some(warning) = machine.warning() {
        eprintln!("{warning}");
    }
    let versions = machine::versions(&candidates);
    let progress = Progress(Instant::now());
    let record = measure(&amounts, &candidates, &picked, &progress)?;
    let programs: Vec<Kind> = candidates.iter().map(|c| c.kind).collect();
    let report = Report {
        date,
        machine,
        versions,
        quick: options.quick,
        settings: amounts,
        rows: report::lines(&programs, &picked, &record),
        programs,
    };
    save(options, &report)?;
    // A short run is made to see whether everything works.
    let failed = report.failed_rows(Kind::Onionport);
    ensure!(
        !options.quick || failed.is_empty(),
        "onionport has no figure for: {}",
        failed.join(", ")
    );
    Ok(())
}

/// The programs to measure, in the order of the columns.
fn candidates(options: &Options) -> Result<Vec<Candidate>> {
    let onionport = match &options.onionport {
        Some(path) => path.clone(),
        None => beside_us("onionport")?,
    };
    let mut candidates = vec![
        (Kind::CTor, PathBuf::from("tor")),
        (Kind::Onionport, onionport),
    ];
    candidates.extend(options.before.clone().map(|path| (Kind::Before, path)));
    candidates.extend(options.arti.clone().map(|path| (Kind::Arti, path)));
    for (kind, path) in &candidates {
        // C tor is found by its name; the network cannot start without it.
        let there = *kind == Kind::CTor || path.is_file();
        ensure!(there, "there is no {} at {}", kind.name(), path.display());
    }
    let candidates = candidates.into_iter();
    Ok(candidates
        .map(|(kind, program)| Candidate {
            kind,
            program,
            lines: match kind {
                Kind::CTor => options.c_tor_line.clone(),
                _ => Vec::new(),
            },
        })
        .collect())
}

fn beside_us(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().context("this program is in no folder")?;
    Ok(folder.join(name))
}

/// Measures everything that is wanted.
fn measure(
    amounts: &Amounts,
    candidates: &[Candidate],
    picked: &Picked,
    progress: &Progress,
) -> Result<Record> {
    let mut record = Record::default();
    for links in [Links::Near, Links::Far] {
        let groups: Vec<_> = GROUPS
            .iter()
            .filter(|group| group.links == links && picked.wants_any(group.name))
            .collect();
        if groups.is_empty() {
            continue;
        }
        progress.say("starting a network");
        let world = match World::start(*amounts, links) {
            Ok(world) => world,
            Err(why) => {
                eprintln!("no network: {why:#}");
                for candidate in candidates {
                    let mut sheet = Sheet::new(picked);
                    groups
                        .iter()
                        .for_each(|group| sheet.fail_all(group.name, &why));
                    record.add(candidate.kind, sheet);
                }
                continue;
            }
        };
        for round in 0..amounts.rounds {
            for group in &groups {
                for candidate in in_turn(candidates, round) {
                    progress.say_round(round, amounts.rounds, group.name, candidate.kind.name());
                    let mut sheet = Sheet::new(picked);
                    if let Err(why) = (group.measure)(&world, candidate, &mut sheet) {
                        eprintln!("{} failed: {why:#}", candidate.kind.name());
                        sheet.fail_all(group.name, &why);
                    }
                    record.add(candidate.kind, sheet);
                }
            }
        }
    }
    if picked.wants_any(CODES) {
        progress.say("starting a network for the codes, and breaking services");
        codes::measure(amounts, candidates, picked, &mut record, |round, whom| {
            progress.say_round(round, amounts.code_rounds, CODES, whom);
        })?;
    }
    Ok(record)
}

/// Tells on standard error how far it is.
struct Progress(Instant);

impl Progress {
    fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.0.elapsed().as_secs_f32());
    }

    fn say_round(&self, round: u32, rounds: u32, group: &str, whom: &str) {
        let round = round + 1;
        self.say(&format!("round {round}/{rounds}  {group:8} {whom}"));
    }
}

/// Prints the table and writes all forms of the results.
fn save(options: &Options, report: &Report) -> Result<()> {
    let folder = &options.out;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let plain = table::plain(report);
    let markdown = table::markdown(report);
    put("results.txt", &plain)?;
    put("results.md", &markdown)?;
    put("results.json", &serde_json::to_string_pretty(report)?)?;
    if let Some(svg) = plot::svg(report) {
        put("results.svg", &svg)?;
    }
    print!("{plain}");
    println!("\nresults are in {}", folder.display());
    if let Some(file) = &options.write {
        markers::write(file, &markdown)?;
        println!("the table is in {}", file.display());
    }
    Ok(())
}
