output "accounts" {
  description = "What each function runs as. Ad platforms, and the owners of tables that a query reads, have to let these in."
  value       = { for key, function in module.function : key => trimprefix(function.member, "serviceAccount:") }
}

output "bucket" {
  description = "Where archives, uploads and exports are."
  value       = google_storage_bucket.archive.name
}

output "run_first" {
  description = "What to run once the secrets have their values: what the hub makes of its configuration, then a run of each stream."
  value = concat(
    ["export WAYBILL_BACKEND=gcp GOOGLE_CLOUD_PROJECT=${var.project} WAYBILL_LOCATION=${var.region}", "./waybill check", "./waybill status"],
    [for job in keys(local._of_streams) : "gcloud scheduler jobs run ${job} --project=${var.project} --location=${var.region}"],
  )
}

output "set_secrets" {
  description = "How to give each secret its value, which is read from the terminal and ends with Ctrl-D."
  value = {
    for name in keys(google_secret_manager_secret.each) :
    name => "gcloud secrets versions add ${name} --project=${var.project} --data-file=-"
  }
}

output "urls" {
  description = "Where each function is called, by those who may."
  value       = { for key, function in module.function : key => function.uri }
}
