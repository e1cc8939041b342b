# An archive for each folder: archives.yaml says what is in it. Its name holds a hash of its content, so that a function
# is deployed again when something in its own archive changed, and not otherwise.

locals {
  archive = yamldecode(file("${path.module}/archives.yaml"))

  # The other integrations that a folder's hub knows.
  besides = {
    for folder in keys(local.entry_points) : folder => [
      for name, integration in local.integrations : name
      if name != folder && (
        !contains(keys(local.integrations), folder) ||
        try(integration.source.system == local.integrations[folder].sink.system, false) &&
        try(integration.sink.system == local.integrations[folder].source.system, false)
      )
    ]
  }

  _always = setunion([for pattern in local.archive.always : fileset(local.root, pattern)]...)
  _own = {
    for folder in keys(local.entry_points) : folder =>
    setunion([for pattern in local.archive.own : fileset(local.root, replace(pattern, "{folder}", folder))]...)
  }
  _beside = {
    for name in keys(local.integrations) : name => toset([
      for path in setunion([for pattern in local.archive.besides : fileset(local.root, replace(pattern, "{folder}", name))]...) :
      path if alltrue([for expression in local.archive.never_besides : length(regexall(expression, path)) == 0])
    ])
  }
  _wanted = {
    for folder in keys(local.entry_points) : folder => setunion(
      local._always, local._own[folder], [for name in local.besides[folder] : local._beside[name]]...
    )
  }

  # The part of the overlay that is about integrations in the archive.
  overlays = {
    for folder in keys(local.entry_points) : folder => {
      for name, says in local.overlay : name => says if contains(concat([folder], local.besides[folder]), name)
    }
  }

  # By folder: the paths of what is taken as it is, and the texts that are written for it.
  archives = {
    for folder, names in local.entry_points : folder => {
      paths = [
        for path in sort(local._wanted[folder]) : path
        if alltrue([for expression in local.archive.never : length(regexall(expression, path)) == 0])
      ]
      texts = merge(
        { "main.py" = replace(replace(local.archive.main, "{folder}", folder), "{names}", join(", ", names)) },
        { for name in [local.archive.overlay] : name => jsonencode(local.overlays[folder]) if length(local.overlays[folder]) > 0 },
      )
    }
  }
}

data "external" "archive" {
  for_each = local.archives
  program  = ["python3", "${path.module}/archive.py"]
  query = {
    root  = local.root
    to    = "${path.module}/.archives/${each.key}.zip"
    paths = jsonencode(each.value.paths)
    texts = jsonencode(each.value.texts)
  }
}

resource "google_storage_bucket_object" "archive" {
  for_each = local.archives
  name     = "${each.key}-${substr(data.external.archive[each.key].result.digest, 0, 16)}.zip"
  bucket   = google_storage_bucket.sources.name
  source   = data.external.archive[each.key].result.path
}
