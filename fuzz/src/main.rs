//! libFuzzer around one target, chosen by the environment variable `FUZZ_TARGET`. With `FUZZ_CORPUS` set, the target's
//! seeds are written to that directory first. `make fuzz` runs it.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use bifrost_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(chosen) = target(&name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET is {name:?}, not one of: {}", names.join(" "));
        std::process::exit(2);
    };
    if let Some(corpus) = std::env::var_os("FUZZ_CORPUS")
        && let Err(error) = write_seeds(chosen, Path::new(&corpus))
    {
        eprintln!("the seeds cannot be written to {}: {error}", Path::new(&corpus).display());
        std::process::exit(2);
    }
    chosen
}

fn write_seeds(target: &Target, corpus: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(corpus)?;
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

fuzz_target!(
    init: {
        CHOSEN.get_or_init(choose);
    },
    |input: &[u8]| (CHOSEN.get_or_init(choose).run)(input)
);
