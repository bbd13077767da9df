// BullMQ on Node: adds jobs, or works on those that wait. Prints JSON.
//
// node bullmq_node.mjs PACKAGES add|work PORT QUEUE COUNT WIDTH: WIDTH is the jobs of one addBulk (1: add), or the
// worker's concurrency. The rate of work counts from the first job done to the last: start-up is left out.
import { createRequire } from 'node:module';

const [packages, what, port, name, count, width] = process.argv.slice(2);
const { Queue, Worker } = createRequire(`${packages}/jobs.mjs`)('bullmq');
const { version } = createRequire(`${packages}/jobs.mjs`)('bullmq/package.json');
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const kept = { removeOnComplete: { count: 1000 } };
const total = Number(count);
const data = JSON.parse(process.env.PAYLOAD ?? '{}');

async function add() {
  const queue = new Queue(name, { connection });
  await queue.waitUntilReady();
  const jobs = Array.from({ length: total }, (_, number) => ({
    name: 'bench.order.placed', data: { ...data, number }, opts: { jobId: `job-${number}`, ...kept },
  }));
  const began = performance.now();
  for (let first = 0; first < total; first += Number(width)) {
    if (width === '1') await queue.add(jobs[first].name, jobs[first].data, jobs[first].opts);
    else await queue.addBulk(jobs.slice(first, first + Number(width)));
  }
  const seconds = (performance.now() - began) / 1000;
  await queue.close();
  return total / seconds;
}

async function work() {
  let done = 0;
  let began = 0;
  return new Promise((resolve) => {
    const worker = new Worker(name, async () => {}, { connection, concurrency: Number(width), ...kept });
    worker.on('completed', async () => {
      done += 1;
      if (done === 1) began = performance.now();
      if (done === total) {
        const rate = (total - 1) / ((performance.now() - began) / 1000);
        await worker.close();
        resolve(rate);
      }
    });
  });
}

const rate = await { add, work }[what]();
process.stdout.write(`${JSON.stringify({ rate, version })}\n`);
