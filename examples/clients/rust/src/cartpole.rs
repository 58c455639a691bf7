//! Play CartPole in Rust, and let a stoker server learn it.
//!
//!     stoker serve --env CartPole-v1
//!     cargo run --release -- http://127.0.0.1:8000 [STEPS] [NAME] [TOKEN]

use std::env::args;
use std::f64::consts::PI;
use std::io;
use stoker::{Actor, Outcome};

/// The pole on a cart of Barto, Sutton and Anderson (1983), with the numbers of Gymnasium's CartPole-v1.
struct CartPole {
    state: [f64; 4],
    steps: u32,
    random: u64,
}

impl CartPole {
    fn reset(&mut self) -> Vec<f64> {
        for value in self.state.iter_mut() {
            self.random ^= self.random << 13; // Marsaglia's xorshift64
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            *value = 0.1 * (self.random >> 11) as f64 / (1u64 << 53) as f64 - 0.05;
        }
        self.steps = 0;
        self.state.to_vec()
    }

    fn step(&mut self, action: i64) -> Outcome {
        let [x, v, angle, turning] = self.state;
        let force = if action == 1 { 10.0 } else { -10.0 };
        let (sin, cos) = angle.sin_cos();
        let pushed = (force + 0.05 * turning * turning * sin) / 1.1;
        let spun = (9.8 * sin - cos * pushed) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1));
        let moved = pushed - 0.05 * spun * cos / 1.1;
        self.state = [x + 0.02 * v, v + 0.02 * moved, angle + 0.02 * turning, turning + 0.02 * spun];
        self.steps += 1;
        let terminated = self.state[0].abs() > 2.4 || self.state[2].abs() > PI / 15.0;
        let truncated = self.steps == 500 && !terminated;
        Outcome { observation: self.state.to_vec(), reward: 1.0, terminated, truncated }
    }
}

fn main() -> io::Result<()> {
    let given: Vec<String> = args().skip(1).collect();
    let url = given.first().map_or("http://127.0.0.1:8000", String::as_str);
    let most: u64 = given.get(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let name = given.get(2).map_or("cartpole-rust", String::as_str);
    let mut actor = Actor::connect(url, name, given.get(3).map(String::as_str))?;
    let mut env = CartPole { state: [0.0; 4], steps: 0, random: 0x9E37_79B9_7F4A_7C15 };
    let (mut steps, mut episodes) = (0, 0);
    while steps < most && !actor.is_done {
        let mut action = actor.start(&env.reset())?;
        while let Some(chosen) = action {
            steps += 1;
            let outcome = env.step(chosen);
            action = actor.step(&outcome)?;
            episodes += u64::from(outcome.terminated || outcome.truncated);
        }
    }
    actor.close()?;
    println!("{steps} steps, {episodes} episodes, all of them on the server's disk");
    Ok(())
}
