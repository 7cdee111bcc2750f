// Validates FHIR R4 resources, value sets included. In: a JSON array of resources; out: for each, the validator's messages.
const { Fhir } = require("fhir");

const fhir = new Fhir();
const resources = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const answers = resources.map((resource) => fhir.validate(resource, { errorOnUnexpected: true }));
process.stdout.write(JSON.stringify(answers));
