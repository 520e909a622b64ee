//! Jobs of SLURM: what is sent, to a stand-in for `sbatch`, and what the script does, under stand-ins for the rest.
//! `trainer/tests/slurm.sh` tries the same on a real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use safelmm_trainer::data::prepare;
use safelmm_trainer::report::Report;
use tempfile::TempDir;

use crate::support::{CONFIG, config, corpora, losses};

/// A folder with programs that stand in front of the path, a configuration and its data.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> World {
        let world = World { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(world.path("bin")).unwrap();
        fs::write(world.path("train.toml"), CONFIG).unwrap();
        world
    }

    /// With data to train on.
    fn with_data() -> World {
        let world = World::new();
        corpora(world.folder.path());
        prepare(&config(), world.folder.path(), None, &world.path("data"), &mut Report::new()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of this name, which writes its arguments into `NAME.log` first.
    fn program(&self, name: &str, text: &str) {
        let file = self.path("bin").join(name);
        let log = self.path(&format!("{name}.log"));
        fs::write(&file, format!("#!/bin/bash\necho \"$*\" >> '{}'\n{text}\n", log.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn log(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The programs of this world, then those of the system.
    fn search(&self) -> String {
        format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap())
    }

    fn pretraining(&self, run: &str, steps: usize) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let (config, data, run, steps) = (path("train.toml"), path("data"), path(run), format!("train.steps={steps}"));
        ["pretrain", "--config", &config, "--data", &data, "--out", &run, "--set", &steps].map(str::to_owned).into()
    }

    fn submit(&self, options: &[&str], training: &[String]) -> (bool, String, String) {
        self.submit_with_path(&self.search(), options, training)
    }

    fn submit_with_path(&self, path: &str, options: &[&str], training: &[String]) -> (bool, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_safelmm-train"))
            .arg("submit")
            .args(options)
            .arg("--")
            .args(training)
            .env("PATH", path)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

fn signal(process: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the log of the run has this many lines.
fn wait_for_lines(run: &Path, lines: usize, process: &mut Child) {
    let began = Instant::now();
    while fs::read_to_string(run.join("log.jsonl")).map_or(0, |log| log.lines().count()) < lines {
        assert!(process.try_wait().unwrap().is_none(), "the run was over before it had {lines} lines");
        assert!(began.elapsed() < Duration::from_secs(300), "the run does not get on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_chain_is_sent_job_behind_job() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    world.program(
        "sbatch",
        &format!("n=$(wc -l < '{}'); echo \"$((40 + n));leonardo\"", world.path("sbatch.log").display()),
    );
    let training = world.pretraining("it's a run", 6);
    let options = ["--jobs", "3", "--time", "2:00:00", "--account", "project"];
    let (done, _, told) = world.submit(&options, &training);
    assert!(done && told.contains("sent 41 42 43") && told.contains("scancel 41 42 43"), "{told}");
    let folder = world.path("it's a run/slurm");
    let script = folder.join("job.sh");
    let call =
        |dependency: &str| format!("--parsable --output={}/%j.log {dependency}{}", folder.display(), script.display());
    let expected = [call(""), call("--dependency=afterany:41 "), call("--dependency=afterany:42 ")];
    assert_eq!(world.log("sbatch"), expected);
    assert_eq!(fs::read_to_string(folder.join("jobs")).unwrap(), "41\n42\n43\n");
    let text = fs::read_to_string(&script).unwrap();
    assert!(text.contains("#SBATCH --time=0-02:00:00\n#SBATCH --account=project\n"), "{text}");
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
    // The same text without sending, and without SLURM.
    let dry = [&options[..], &["--dry-run"]].concat();
    let (done, printed, _) = world.submit_with_path("", &dry, &training);
    assert!(done && printed == text, "{printed}");
    // Elsewhere, where that is asked for.
    let (done, _, _) = world.submit(&["--out", "jobs here"], &training);
    assert!(done && world.path("jobs here/job.sh").exists());
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    world.program("sbatch", "echo 1");
    let training = world.pretraining("run", 6);
    let with = |more: &[&str]| [training.clone(), more.iter().map(|&word| word.to_owned()).collect()].concat();
    let chat = ["finetune", "--config", "train.toml", "--checkpoint", "c", "--instructions", "i", "--out", "r"];
    let refused: [(&[&str], Vec<String>, &str); 9] = [
        (&[], with(&["--set", "train.beta2=1.5"]), "train.beta2 is 1.5"),
        (&[], with(&["--set", "train.beta3=0.5"]), "beta3"),
        (&[], with(&["--init", "nowhere"]), "nowhere: there is no such"),
        (&[], with(&["--verbose"]), "--verbose"),
        (&[], chat.map(str::to_owned).into(), "unknown field `data`"),
        (&[], vec!["rate".to_owned()], "expected `pretrain` or `finetune`"),
        (&["--time", "3"], with(&[]), "not longer than --signal-seconds 180"),
        (&["--nodes", "2"], with(&[]), "expected one of each"),
        (&["--partition", "a b"], with(&[]), "expected letters"),
    ];
    for (options, training, words) in refused {
        let (done, _, told) = world.submit(options, &training);
        assert!(!done && told.contains(words), "{options:?} {training:?}: {told}");
    }
    assert!(world.log("sbatch").is_empty() && !world.path("run").exists());
}

#[test]
fn an_absent_sbatch_a_refusal_and_a_strange_answer_are_told_apart() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    let training = world.pretraining("run", 6);
    let empty = world.path("data").display().to_string();
    let (done, _, told) = world.submit_with_path(&empty, &[], &training);
    assert!(!done && told.contains("no `sbatch` on the path"), "{told}");
    world.program("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1");
    let (done, _, told) = world.submit(&[], &training);
    assert!(!done && told.contains("invalid partition") && told.contains("no job was sent"), "{told}");
    world.program("sbatch", "echo Submitted batch job 12");
    let (done, _, told) = world.submit(&[], &training);
    assert!(!done && told.contains("answered \"Submitted batch job 12\\n\"") && told.contains("number"), "{told}");
    // Refused in the middle of a chain: what was taken before is named.
    fs::remove_file(world.path("sbatch.log")).unwrap();
    let count = format!("n=$(wc -l < '{}')", world.path("sbatch.log").display());
    world.program("sbatch", &format!("{count}; [ $n -lt 3 ] && echo 5$n"));
    let (done, _, told) = world.submit(&["--jobs", "4"], &training);
    assert!(!done && told.contains("scancel 51 52"), "{told}");
    assert_eq!(fs::read_to_string(world.path("run/slurm/jobs")).unwrap(), "51\n52\n");
}

#[test]
fn signals_end_a_run_with_codes_of_their_own_and_a_checkpoint() {
    let world = World::with_data();
    let run = world.path("run");
    let command = |steps| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm-train"));
        command.args(world.pretraining("run", steps)).stderr(Stdio::piped());
        command
    };
    let mut seen = 0;
    for (name, code) in [("USR1", 75), ("TERM", 75), ("INT", 130)] {
        let mut process = command(100_000).spawn().unwrap();
        wait_for_lines(&run, seen + 2, &mut process);
        signal(&process, name);
        let output = process.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {told}");
        let steps = losses(&run).len();
        assert!(told.contains(&format!("stopped at step {steps};")) && run.join(format!("step-{steps:08}")).exists());
        assert!(steps > seen, "{told}");
        seen = steps;
    }
}

/// The stand-ins for what the script calls: `srun` runs the command itself.
fn cluster(world: &World, state: &str) {
    world.program("srun", "while [ \"${1#--}\" != \"$1\" ]; do shift; done\nexec \"$@\"");
    world.program("squeue", &format!("echo {state}"));
    world.program("scontrol", "");
    world.program("scancel", "");
    world.program("sbatch", "echo 7");
}

fn job(world: &World, run: &str) -> Child {
    Command::new("bash")
        .arg(world.path(run).join("slurm/job.sh"))
        .env("PATH", world.search())
        .env("SLURM_JOB_ID", "7")
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_run_cut_by_the_scripts_signal_queues_itself_and_ends_with_the_losses_of_an_uncut_one() {
    let world = World::with_data();
    cluster(&world, "RUNNING");
    let steps = 60;
    let command = world.pretraining("whole", steps);
    let status =
        Command::new(env!("CARGO_BIN_EXE_safelmm-train")).args(command).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let (done, _, told) = world.submit(&["--cpus-per-task", "1"], &world.pretraining("cut", steps));
    assert!(done, "{told}");
    for cut in 1..=2 {
        let mut process = job(&world, "cut");
        wait_for_lines(&world.path("cut"), losses_so_far(&world.path("cut")) + 3, &mut process);
        signal(&process, if cut == 1 { "USR1" } else { "TERM" });
        assert_eq!(process.wait().unwrap().code(), Some(0), "scontrol ends the script");
        assert_eq!(world.log("scontrol").len(), cut);
    }
    assert_eq!(world.log("scontrol"), ["requeue 7", "requeue 7"]);
    assert!(world.log("squeue")[0].contains("--jobs=7"), "{:?}", world.log("squeue"));
    assert_eq!(job(&world, "cut").wait().unwrap().code(), Some(0));
    assert_eq!(losses(&world.path("cut")), losses(&world.path("whole")));
    assert_eq!(losses(&world.path("cut")).len(), steps);
    assert_eq!(world.log("scontrol").len(), 2, "a finished run does not come back");
    // Whatever comes behind finds nothing to do.
    fs::remove_dir_all(world.path("data")).unwrap();
    assert_eq!(job(&world, "cut").wait().unwrap().code(), Some(0));
}

fn losses_so_far(run: &Path) -> usize {
    fs::read_to_string(run.join("log.jsonl")).map_or(0, |log| log.lines().count())
}

#[test]
fn a_cancelled_job_does_not_come_back_and_a_failed_one_takes_its_chain_along() {
    let world = World::with_data();
    cluster(&world, "COMPLETING");
    assert!(world.submit(&[], &world.pretraining("run", 100_000)).0);
    let mut process = job(&world, "run");
    wait_for_lines(&world.path("run"), 2, &mut process);
    signal(&process, "TERM");
    assert_eq!(process.wait().unwrap().code(), Some(75));
    assert!(world.log("scontrol").is_empty());

    // A job of a chain that is cut leaves the rest to the next one.
    cluster(&world, "RUNNING");
    assert!(world.submit(&["--jobs", "2"], &world.pretraining("run", 100_000)).0);
    let mut process = job(&world, "run");
    wait_for_lines(&world.path("run"), losses_so_far(&world.path("run")) + 2, &mut process);
    signal(&process, "USR1");
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(world.log("scontrol").is_empty() && world.log("scancel").is_empty());

    // An error is the end of the whole chain: the jobs behind it, not those before.
    fs::write(world.path("run/slurm/jobs"), "6\n7\n8\n9\n").unwrap();
    fs::remove_dir_all(world.path("data")).unwrap();
    assert_eq!(job(&world, "run").wait().unwrap().code(), Some(1));
    assert_eq!(world.log("scancel"), ["8 9"]);
}
