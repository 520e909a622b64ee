// Renders /openapi.json: the routes by their tags, then the schemas. Texts are always set as text, never as HTML.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

const nameOf = (ref) => ref.split("/").pop();
const schemaLink = (name) => make("a", { href: `#schema-${name}` }, name);
const operationId = (method, path) => `${method}-${path}`;

// `code` in descriptions becomes an element.
const prose = (text) =>
  (text ?? "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

const joined = (parts, separator) => parts.flatMap((part, index) => (index ? [separator, ...part] : part));

// The type of a schema, as nodes.
function type(schema) {
  if (schema === undefined || schema === true || Object.keys(schema).length === 0) return ["anything"];
  if (schema.$ref) return [schemaLink(nameOf(schema.$ref))];
  for (const form of ["oneOf", "anyOf"]) if (schema[form]) return joined(schema[form].map(type), " or ");
  if (schema.allOf) return joined(schema.allOf.map(type), " and ");
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  const kinds = [schema.type ?? "anything"].flat();
  return joined(
    kinds.map((kind) => {
      if (kind === "array") return ["list of (", ...type(schema.items), ")"];
      if (kind === "object" && schema.additionalProperties) return ["object of (", ...type(schema.additionalProperties), ")"];
      return [kind];
    }),
    " or ",
  );
}

const bounds = (schema) =>
  [
    ["minimum", "at least"],
    ["maximum", "at most"],
    ["maxLength", "characters at most"],
    ["pattern", "pattern"],
  ]
    .filter(([key]) => schema[key] !== undefined)
    .map(([key, words]) => `${words} ${schema[key]}`)
    .join(", ");

function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const required = (schema.required ?? []).includes(name);
    return make(
      "tr",
      {},
      make("td", {}, make("code", field.deprecated ? { class: "deprecated" } : {}, name), required ? " *" : ""),
      make(
        "td",
        {},
        ...prose(field.description),
        make("div", { class: "type" }, ...type(field), bounds(field) ? ` — ${bounds(field)}` : ""),
      ),
    );
  });
  return make("table", {}, make("tbody", {}, ...rows));
}

function schemaSection(name, schema) {
  const section = make("section", { id: `schema-${name}` }, make("h3", {}, make("code", {}, name)));
  if (schema.description) section.append(make("p", {}, ...prose(schema.description)));
  section.append(schema.properties ? fields(schema) : make("p", { class: "type" }, ...type(schema)));
  return section;
}

function contents(content) {
  return Object.entries(content ?? {}).map(([mime, { schema }]) => make("div", { class: "type" }, `${mime}: `, ...type(schema)));
}

function operationSection(method, path, operation) {
  const title = make("h3", {}, make("span", { class: `method ${method}` }, method), " ", make("code", {}, path));
  const section = make("section", { id: operationId(method, path) }, title, make("p", {}, ...prose(operation.summary)));
  if (operation.description) section.append(make("p", {}, ...prose(operation.description)));
  const rows = [];
  for (const parameter of operation.parameters ?? []) {
    rows.push([`${parameter.name} *`, [...prose(parameter.description), make("div", { class: "type" }, ...type(parameter.schema))]]);
  }
  if (operation.requestBody) rows.push(["body", contents(operation.requestBody.content)]);
  for (const [status, response] of Object.entries(operation.responses ?? {})) {
    rows.push([status, [...prose(response.description), ...contents(response.content)]]);
  }
  const body = rows.map(([name, cells]) => make("tr", {}, make("td", {}, make("code", {}, name)), make("td", {}, ...cells)));
  section.append(make("table", {}, make("tbody", {}, ...body)));
  return section;
}

function render(api) {
  const navigation = document.querySelector("nav");
  const main = document.querySelector("main");
  main.replaceChildren(make("p", {}, ...prose(api.info.description)), make("p", { class: "dim" }, `Version ${api.info.version}. Fields with * are required; null is the same as absent.`));
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ method, path, operation })),
  );
  for (const tag of api.tags) {
    const tagged = operations.filter(({ operation }) => (operation.tags ?? []).includes(tag.name));
    main.append(make("h2", {}, tag.description ?? tag.name), ...tagged.map(({ method, path, operation }) => operationSection(method, path, operation)));
    const links = tagged.map(({ method, path }) =>
      make("li", {}, make("a", { href: `#${operationId(method, path)}` }, make("span", { class: `method ${method}` }, method), ` ${path}`)),
    );
    navigation.append(make("strong", {}, tag.name), make("ul", {}, ...links));
  }
  const schemas = Object.entries(api.components.schemas);
  main.append(make("h2", {}, "Schemas"), ...schemas.map(([name, schema]) => schemaSection(name, schema)));
  navigation.append(make("strong", {}, "schemas"), make("ul", {}, ...schemas.map(([name]) => make("li", {}, schemaLink(name)))));
  // The anchor's place exists only now.
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  render(await response.json());
} catch (error) {
  document.querySelector("main").replaceChildren(make("p", {}, `The description could not be loaded: ${error.message}`));
}
