// The hello app on Node's cluster module, whose primary sends messages to all
// workers.  It takes the commands that benchmarks/apps/broadcast.py describes
// on the UNIX socket `control` in the working directory.
//
//   node node_broadcast.js PORT WORKERS
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const net = require('node:net');
const readline = require('node:readline');

const [port, count] = process.argv.slice(2).map(Number);
const nanoseconds = () => Number(process.hrtime.bigint());
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function clocks() {
  const began = nanoseconds();
  const before = process.cpuUsage();
  const seconds = () => (nanoseconds() - began) / 1e9;
  const cpu = () => {
    const used = process.cpuUsage(before);
    return (used.user + used.system) / 1e6;
  };
  return { seconds, read: (more) => ({ seconds: seconds(), cpu: cpu(), ...more }) };
}

// In the primary.

const workers = [];
const waiting = new Map();
let questions = 0;

function tell(message) {
  for (const worker of workers) worker.send(message);
}

function call(worker, message) {
  return new Promise((resolve) => {
    waiting.set(++questions, resolve);
    worker.send({ ...message, question: questions });
  });
}

function answered({ question, answer }) {
  waiting.get(question)(answer);
  waiting.delete(question);
}

const ask = (message) => Promise.all(workers.map((worker) => call(worker, message)));

async function blocks(since) {
  const reports = await ask({ topic: 'report' });
  return since.read({ blocks: reports.map((report) => report.blocks) });
}

const commands = {
  async rate({ count }) {
    const since = clocks();
    const message = { topic: 'block', v: 'x'.repeat(1000) };
    for (let i = 0; i < count; i++) tell(message);
    return blocks(since);
  },

  async steady({ rate, seconds }) {
    const since = clocks();
    const message = { topic: 'block', v: 'x'.repeat(1000) };
    let told = 0;
    while (told < rate * seconds) {
      for (const due = Math.floor(since.seconds() * rate); told < due; told++) tell(message);
      await pause(0.001);
    }
    return { ...(await blocks(since)), told };
  },

  async large({ size }) {
    const since = clocks();
    tell({ topic: 'block', v: 'x'.repeat(size) });
    return blocks(since);
  },

  async stamps({ count, interval }) {
    for (let i = 0; i < count; i++) {
      tell({ topic: 'stamp', at: nanoseconds() });
      await pause(interval);
    }
    return (await ask({ topic: 'report' })).flatMap((report) => report.delays);
  },

  async calls({ count, interval }) {
    const delays = [];
    for (let i = 0; i < count; i++) {
      const began = nanoseconds();
      await call(workers[i % workers.length], { topic: 'echo', at: began });
      delays.push(nanoseconds() - began);
      await pause(interval);
    }
    return delays;
  },

  async state({ keys, size, mark }) {
    const items = {};
    for (let i = 0; i < keys; i++) items[`key ${i}`] = String.fromCharCode(65 + (mark % 26)).repeat(size);
    const since = clocks();
    return since.read({ sizes: await ask({ topic: 'state', items }) });
  },
};

function control(socket) {
  readline.createInterface({ input: socket }).on('line', async (line) => {
    const command = JSON.parse(line);
    socket.write(`${JSON.stringify(await commands[command.do](command))}\n`);
  });
}

function startWorker() {
  const worker = cluster.fork();
  worker.on('message', answered);
  worker.once('listening', () => console.log(`listening ${worker.process.pid}`));
  workers.push(worker);
}

// In the workers.

let seen = { blocks: 0, delays: [] };

const handlers = {
  block() {
    seen.blocks++;
  },
  stamp({ at }) {
    seen.delays.push(nanoseconds() - at);
  },
  echo: ({ at }) => at,
  report() {
    const found = seen;
    seen = { blocks: 0, delays: [] };
    return found;
  },
  state: ({ items }) => Object.values(items).reduce((sum, value) => sum + value.length, 0),
};

function received(message) {
  const answer = handlers[message.topic](message);
  if (message.question) process.send({ question: message.question, answer });
}

function answer(request, response) {
  response.setHeader('Content-Type', 'text/html');
  response.end('hello\n');
}

if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let i = 0; i < count; i++) startWorker();
  net.createServer(control).listen('control');
} else {
  process.on('message', received);
  http.createServer(answer).listen(port, '127.0.0.1');
}
