//! The `bench` program. The library's documentation describes it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bench::machine::{self, Machine};
use bench::options::{Options, RowFilter, Settings};
use bench::proxy::{Candidate, Program, rotated};
use bench::report::{self, Report, markers, plot, table};
use bench::results::{Results, RunResults};
use bench::rows::{CODES, GROUPS, Links, codes};
use bench::testbed::Testbed;
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
    let filter = options.row_filter()?;
    let settings = options.settings();
    let candidates = find_candidates(options)?;
    if let Some(file) = &options.write {
        ensure!(file.exists(), "--write: {} does not exist", file.display());
    }
    let date = machine::today();
    let machine = Machine::detect();
    if let Some(warning) = machine.warning() {
        eprintln!("{warning}");
    }
    let versions = machine::find_versions(&candidates);
    let progress = Progress(Instant::now());
    let results = measure(&settings, &candidates, &filter, &progress)?;
    let programs: Vec<Program> = candidates.iter().map(|c| c.program).collect();
    let report = Report {
        date,
        machine,
        versions,
        quick: options.quick,
        settings,
        rows: report::collect_rows(&programs, &filter, &results),
        programs,
    };
    save_and_print(options, &report)?;
    // A short run is a check, so a failed run or a wrong code is an error.
    let failed = report.failed_rows(Program::Onionport);
    ensure!(
        !options.quick || failed.is_empty(),
        "onionport failed, or sent a wrong code, in these rows: {}",
        failed.join(", ")
    );
    Ok(())
}

/// Returns the programs to measure, in the order of the columns.
fn find_candidates(options: &Options) -> Result<Vec<Candidate>> {
    let onionport = match &options.onionport {
        Some(path) => path.clone(),
        None => sibling_program("onionport")?,
    };
    let mut candidates = vec![
        (Program::CTor, PathBuf::from("tor")),
        (Program::Onionport, onionport),
    ];
    candidates.extend(options.before.clone().map(|path| (Program::Before, path)));
    candidates.extend(options.arti.clone().map(|path| (Program::Arti, path)));
    for (program, path) in &candidates {
        // C tor is found in `PATH`, and the network does not start without it.
        let found = *program == Program::CTor || path.is_file();
        ensure!(
            found,
            "{} is not a file: {}",
            program.name(),
            path.display()
        );
    }
    let candidates = candidates.into_iter();
    Ok(candidates
        .map(|(program, path)| Candidate {
            program,
            path,
            torrc_lines: match program {
                Program::CTor => options.c_tor_line.clone(),
                _ => Vec::new(),
            },
        })
        .collect())
}

/// Returns the path of a program in the folder of this program.
fn sibling_program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this
        .parent()
        .context("the path of this program has no folder")?;
    Ok(folder.join(name))
}

/// Measures the selected rows. Failures become part of the results.
fn measure(
    settings: &Settings,
    candidates: &[Candidate],
    filter: &RowFilter,
    progress: &Progress,
) -> Result<Results> {
    let mut results = Results::default();
    for links in [Links::Near, Links::Far] {
        let groups: Vec<_> = GROUPS
            .iter()
            .filter(|group| group.links == links && filter.includes_any(group.name))
            .collect();
        if groups.is_empty() {
            continue;
        }
        progress.log("starting a network");
        let testbed = match Testbed::start(*settings, links) {
            Ok(testbed) => testbed,
            Err(error) => {
                eprintln!("cannot start the network: {error:#}");
                for candidate in candidates {
                    let mut run = RunResults::new(filter);
                    for group in &groups {
                        run.add_failures(group.name, &error);
                    }
                    results.add(candidate.program, run);
                }
                continue;
            }
        };
        for round in 0..settings.rounds {
            for group in &groups {
                for candidate in rotated(candidates, round) {
                    let name = candidate.program.name();
                    progress.log_round(round, settings.rounds, group.name, name);
                    let mut run = RunResults::new(filter);
                    if let Err(error) = (group.measure)(&testbed, candidate, &mut run) {
                        eprintln!("{name} failed: {error:#}");
                        run.add_failures(group.name, &error);
                    }
                    results.add(candidate.program, run);
                }
            }
        }
    }
    if filter.includes_any(CODES) {
        progress.log("starting a network for the codes, and breaking services");
        codes::measure(settings, candidates, filter, &mut results, |round, step| {
            progress.log_round(round, settings.code_rounds, CODES, step);
        })?;
    }
    Ok(results)
}

/// Logs the progress to standard error, with the time since the start.
struct Progress(Instant);

impl Progress {
    fn log(&self, step: &str) {
        eprintln!("{:6.1} s  {step}", self.0.elapsed().as_secs_f32());
    }

    fn log_round(&self, round: u32, rounds: u32, group: &str, step: &str) {
        let round = round + 1;
        self.log(&format!("round {round}/{rounds}  {group:8} {step}"));
    }
}

/// Prints the table and saves the results in all formats.
fn save_and_print(options: &Options, report: &Report) -> Result<()> {
    let folder = &options.out;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let save = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    let text = table::format_text(report);
    let markdown = table::format_markdown(report);
    save("results.txt", &text)?;
    save("results.md", &markdown)?;
    save("results.json", &serde_json::to_string_pretty(report)?)?;
    if let Some(svg) = plot::draw_svg(report) {
        save("results.svg", &svg)?;
    }
    print!("{text}");
    println!("\nsaved the results in {}", folder.display());
    if let Some(file) = &options.write {
        markers::write(file, &markdown)?;
        println!("wrote the table to {}", file.display());
    }
    Ok(())
}
