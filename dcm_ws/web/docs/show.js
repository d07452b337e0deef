// Shows /openapi.json with Swagger UI, which is in this folder.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#calls",
  deepLinking: true,
  // it would ask a server on the internet
  validatorUrl: null,
  // without tokens in the address bar or in the storage of the browser
  persistAuthorization: false,
});
