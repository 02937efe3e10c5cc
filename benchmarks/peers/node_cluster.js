// The hello app on Node's cluster module, with round-robin scheduling by the
// primary.  A worker that dies is replaced; SIGUSR2 replaces all of them, one
// at a time, each by a successor that starts when it has gone.
//
//   node node_cluster.js PORT WORKERS
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');

const [port, workers] = process.argv.slice(2).map(Number);

function answer(request, response) {
  response.setHeader('Content-Type', 'text/html');
  response.end(request.url === '/pid' ? String(process.pid) : 'hello\n');
}

function startWorker() {
  const worker = cluster.fork();
  worker.once('listening', () => console.log(`listening ${worker.process.pid}`));
  return worker;
}

function replace(old) {
  return new Promise((resolve) => {
    old.once('exit', () => startWorker().once('listening', resolve));
    old.disconnect();
  });
}

async function reload() {
  for (const worker of Object.values(cluster.workers)) await replace(worker);
}

if (cluster.isPrimary) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let i = 0; i < workers; i++) startWorker();
  cluster.on('exit', (worker) => {
    if (!worker.exitedAfterDisconnect) startWorker();
  });
  process.on('SIGUSR2', reload);
} else {
  http.createServer(answer).listen(port, '127.0.0.1');
}
