// Real BullMQ on Node, for the tests: node jobs.mjs COMMAND <'{"port": 6379, "queue": "name", …}'. One JSON line per fact.
import { readFileSync } from 'node:fs';
import { Queue, QueueEvents, Worker } from 'bullmq';

const command = process.argv[2];
const options = JSON.parse(readFileSync(0, 'utf8'));
const { port, queue: name, prefix = 'bull' } = options;
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const say = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const EVENTS = ['added', 'waiting', 'active', 'completed', 'failed', 'stalled', 'delayed', 'duplicated', 'drained'];

const commands = {
  // Adds `jobs` in one piece with `bulk`, else one by one; with `wait` it waits until each is finished.
  async add() {
    const queue = new Queue(name, { connection, prefix });
    const events = options.wait ? new QueueEvents(name, { connection, prefix }) : null;
    await events?.waitUntilReady();
    const jobs = [];
    if (options.bulk) {
      jobs.push(...await queue.addBulk(options.jobs));
    } else {
      for (const { name: type, data, opts } of options.jobs) {
        try {
          jobs.push(await queue.add(type, data, opts));
        } catch (error) {
          say({ error: error.message, id: opts?.jobId });
        }
      }
    }
    for (const job of jobs) say({ id: job.id, due: job.timestamp + (job.opts.delay ?? 0) });
    for (const job of events ? jobs : []) say({ finished: job.id, returned: await job.waitUntilFinished(events) });
    await events?.close();
    await queue.close();
  },

  // Works on jobs until `count` are done; holds each for `hold` ms, and says when it takes and when it ends one.
  async work() {
    let done = 0;
    const worker = new Worker(name, async (job) => {
      say({ taken: job.id });
      await later(options.hold ?? 0);
      if (options.fails) throw new Error('as told');
      return { from: 'node' };
    }, {
      connection, prefix, concurrency: options.concurrency ?? 1,
      lockDuration: options.lock ?? 30000, stalledInterval: options.stalled ?? 30000,
    });
    worker.on('error', () => {});
    worker.on('failed', (job) => say({ failed: job.id, attempts: job.attemptsMade }));
    worker.on('completed', async (job) => {
      say({ done: job.id, name: job.name, data: job.data, telemetry: job.opts.telemetry, attempts: job.opts.attempts });
      done += 1;
      if (done === options.count) await worker.close();
    });
    await worker.waitUntilReady();
    say({ ready: true });
  },

  // Says every event of the queue until it is killed.
  async listen() {
    const events = new QueueEvents(name, { connection, prefix });
    for (const event of EVENTS) events.on(event, (fact) => say({ event, ...fact }));
    await events.waitUntilReady();
    say({ ready: true });
  },

  // Says how the queue looks to Node: counts, workers, and the states of the jobs in `ids`.
  async look() {
    const queue = new Queue(name, { connection, prefix });
    const states = {};
    for (const id of options.ids ?? []) states[id] = await queue.getJobState(id);
    const workers = (await queue.getWorkers()).length;
    say({ counts: await queue.getJobCounts(), workers, states });
    await queue.close();
  },
};

await commands[command]();
